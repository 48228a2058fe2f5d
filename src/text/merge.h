// The merge loop that byte-level BPE and SentencePiece BPE share: always merge the best pair, the
// leftmost among equals.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace edgewise {

// What a pair of neighbours becomes. Lower ranks merge first.
struct PairRule {
  uint32_t rank = UINT32_MAX;  // UINT32_MAX: the pair does not merge
  int32_t merged = -1;
};

// A hash table of rules by pair of symbols (symbols are not negative). Immutable once filled, so
// thread-safe.
class PairTable {
 public:
  PairTable() : slots_(16) {}
  // Adds a rule of rank below UINT32_MAX; false, changing nothing, when the pair has one.
  bool Insert(int32_t left, int32_t right, PairRule rule);
  PairRule Find(int32_t left, int32_t right) const;
  // One more than the highest rank.
  uint32_t rank_count() const { return rank_count_; }

 private:
  struct Slot {
    int32_t left = -1;
    int32_t right = -1;
    PairRule rule;
  };
  size_t Start(int32_t left, int32_t right) const;
  void Grow();
  std::vector<Slot> slots_;
  size_t count_ = 0;
  uint32_t rank_count_ = 0;
};

// Merges sequences of symbols, reusing its buffers. Not thread-safe; the table must outlive it.
class PairMerger {
 public:
  explicit PairMerger(const PairTable& table) : table_(table) {}
  // Merges until no rule applies. O(n log n).
  void Merge(std::vector<int32_t>* symbols);

 private:
  // A node of the doubly linked list of a long sequence, with the rule for it and its successor.
  struct Node {
    int32_t symbol;
    int32_t previous, next;  // -1 at the ends
    PairRule rule;
  };
  // The positions whose pair has one rank. Those added after its first use are kept apart, in a
  // heap.
  struct Bucket {
    std::vector<uint32_t> positions;
    std::vector<uint32_t> late;
    size_t used = 0;
    bool started = false;
  };

  void MergeShort(std::vector<int32_t>* symbols);
  void MergeLong(std::vector<int32_t>* symbols);
  void Push(uint32_t rank, uint32_t position);
  bool Pop(uint32_t* rank, uint32_t* position);
  void SetRule(int32_t position);

  const PairTable& table_;
  std::vector<PairRule> rules_;  // of MergeShort
  std::vector<Node> nodes_;      // of MergeLong
  std::vector<Bucket> buckets_;
  std::vector<uint32_t> free_;       // buckets not in use
  std::vector<uint32_t> bucket_of_;  // rank -> 1 + index of its bucket, 0 for none
  std::vector<uint32_t> ranks_;      // min-heap of the ranks that have a bucket
};

}  // namespace edgewise
