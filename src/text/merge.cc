#include "text/merge.h"

#include <algorithm>
#include <functional>

namespace edgewise {
namespace {

// Up to here a scan for the least rank is faster than any queue.
constexpr size_t kShort = 40;

}  // namespace

size_t PairTable::Start(int32_t left, int32_t right) const {
  uint64_t key =
      static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 | static_cast<uint32_t>(right);
  key *= 0x9E3779B97F4A7C15ull;
  key ^= key >> 32;
  key *= 0xD6E8FEB86659FD93ull;
  return (key >> 32) & (slots_.size() - 1);
}

void PairTable::Grow() {
  std::vector<Slot> old(slots_.size() * 2);
  old.swap(slots_);
  for (const Slot& slot : old) {
    if (slot.left < 0) continue;
    size_t i = Start(slot.left, slot.right);
    while (slots_[i].left >= 0) i = (i + 1) & (slots_.size() - 1);
    slots_[i] = slot;
  }
}

bool PairTable::Insert(int32_t left, int32_t right, PairRule rule) {
  if (Find(left, right).merged >= 0) return false;
  if ((count_ + 1) * 2 > slots_.size()) Grow();
  size_t i = Start(left, right);
  while (slots_[i].left >= 0) i = (i + 1) & (slots_.size() - 1);
  slots_[i] = {left, right, rule};
  ++count_;
  rank_count_ = std::max(rank_count_, rule.rank + 1);
  return true;
}

PairRule PairTable::Find(int32_t left, int32_t right) const {
  for (size_t i = Start(left, right);; i = (i + 1) & (slots_.size() - 1)) {
    const Slot& slot = slots_[i];
    if (slot.left == left && slot.right == right) return slot.rule;
    if (slot.left < 0) return {};
  }
}

void PairMerger::Merge(std::vector<int32_t>* symbols) {
  if (symbols->size() < 2) return;
  symbols->size() <= kShort ? MergeShort(symbols) : MergeLong(symbols);
}

void PairMerger::MergeShort(std::vector<int32_t>* symbols) {
  std::vector<int32_t>& s = *symbols;
  rules_.resize(s.size() - 1);
  for (size_t i = 0; i + 1 < s.size(); ++i) rules_[i] = table_.Find(s[i], s[i + 1]);
  while (!rules_.empty()) {
    size_t best = 0;
    for (size_t i = 1; i < rules_.size(); ++i) {
      if (rules_[i].rank < rules_[best].rank) best = i;
    }
    if (rules_[best].merged < 0) return;
    s[best] = rules_[best].merged;
    s.erase(s.begin() + static_cast<ptrdiff_t>(best) + 1);
    rules_.erase(rules_.begin() + static_cast<ptrdiff_t>(best));
    if (best > 0) rules_[best - 1] = table_.Find(s[best - 1], s[best]);
    if (best < rules_.size()) rules_[best] = table_.Find(s[best], s[best + 1]);
  }
}

void PairMerger::Push(uint32_t rank, uint32_t position) {
  uint32_t& slot = bucket_of_[rank];
  if (slot == 0) {
    if (free_.empty()) {
      free_.push_back(static_cast<uint32_t>(buckets_.size()));
      buckets_.emplace_back();
    }
    slot = free_.back() + 1;
    free_.pop_back();
    ranks_.push_back(rank);
    std::push_heap(ranks_.begin(), ranks_.end(), std::greater<>());
  }
  Bucket& bucket = buckets_[slot - 1];
  if (bucket.started) {
    bucket.late.push_back(position);
    std::push_heap(bucket.late.begin(), bucket.late.end(), std::greater<>());
  } else {
    bucket.positions.push_back(position);
  }
}

bool PairMerger::Pop(uint32_t* rank, uint32_t* position) {
  while (!ranks_.empty()) {
    *rank = ranks_.front();
    Bucket& bucket = buckets_[bucket_of_[*rank] - 1];
    if (!bucket.started) {
      if (!std::is_sorted(bucket.positions.begin(), bucket.positions.end())) {
        std::sort(bucket.positions.begin(), bucket.positions.end());
      }
      bucket.started = true;
    }
    const bool left = bucket.used < bucket.positions.size();
    if (!bucket.late.empty() && (!left || bucket.late.front() < bucket.positions[bucket.used])) {
      *position = bucket.late.front();
      std::pop_heap(bucket.late.begin(), bucket.late.end(), std::greater<>());
      bucket.late.pop_back();
      return true;
    }
    if (left) {
      *position = bucket.positions[bucket.used++];
      return true;
    }
    bucket.positions.clear();
    bucket.used = 0;
    bucket.started = false;
    free_.push_back(bucket_of_[*rank] - 1);
    bucket_of_[*rank] = 0;
    std::pop_heap(ranks_.begin(), ranks_.end(), std::greater<>());
    ranks_.pop_back();
  }
  return false;
}

// Looks up the pair that starts at `position` and queues it.
void PairMerger::SetRule(int32_t position) {
  Node& node = nodes_[position];
  node.rule = node.next < 0 ? PairRule{} : table_.Find(node.symbol, nodes_[node.next].symbol);
  if (node.rule.merged >= 0) Push(node.rule.rank, static_cast<uint32_t>(position));
}

void PairMerger::MergeLong(std::vector<int32_t>* symbols) {
  const auto count = static_cast<int32_t>(symbols->size());
  bucket_of_.resize(table_.rank_count());
  nodes_.resize(count);
  for (int32_t i = 0; i < count; ++i) {
    nodes_[i] = {(*symbols)[i], i - 1, i + 1 < count ? i + 1 : -1, {}};
  }
  for (int32_t i = 0; i < count; ++i) SetRule(i);

  uint32_t rank = 0, position = 0;
  while (Pop(&rank, &position)) {
    Node& node = nodes_[position];
    // An entry is stale when its pair has been merged away or has become another pair.
    if (node.symbol < 0 || node.rule.rank != rank) continue;
    Node& gone = nodes_[node.next];
    node.symbol = node.rule.merged;
    node.next = gone.next;
    if (gone.next >= 0) nodes_[gone.next].previous = static_cast<int32_t>(position);
    gone.symbol = -1;
    if (node.previous >= 0) SetRule(node.previous);
    SetRule(static_cast<int32_t>(position));
  }

  symbols->clear();
  for (int32_t i = 0; i >= 0; i = nodes_[i].next) symbols->push_back(nodes_[i].symbol);
}

}  // namespace edgewise
