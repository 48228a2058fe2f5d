#include "eval/duplicates.h"

#include <algorithm>
#include <array>
#include <cstdint>
#include <deque>
#include <limits>
#include <numeric>
#include <string_view>
#include <unordered_map>
#include <utility>

#include "eval/words.h"

namespace edgewise {
namespace {

constexpr size_t kShingleWords = 3;
constexpr size_t kBands = 20, kRows = 6;
constexpr size_t kMaxCompared = 32;

using Bands = std::array<uint64_t, kBands>;

// One hash for each band of the MinHash signature of a set.
Bands Signature(const std::vector<uint64_t>& set) {
  Bands bands = {};
  for (size_t band = 0; band < kBands; ++band) {
    for (size_t row = 0; row < kRows; ++row) {
      const uint64_t key = MixBits(band * kRows + row);
      uint64_t least = std::numeric_limits<uint64_t>::max();
      for (const uint64_t item : set) least = std::min(least, MixBits(item ^ key));
      bands[band] = MixBits(bands[band] ^ least);
    }
  }
  return bands;
}

// Of two ascending sets.
double Jaccard(const std::vector<uint64_t>& a, const std::vector<uint64_t>& b) {
  size_t both = 0;
  for (size_t i = 0, j = 0; i < a.size() && j < b.size();) {
    if (a[i] == b[j])
      ++both, ++i, ++j;
    else if (a[i] < b[j])
      ++i;
    else
      ++j;
  }
  const size_t either = a.size() + b.size() - both;
  return either == 0 ? 0 : static_cast<double>(both) / static_cast<double>(either);
}

// Groups whose first member stands for them.
class Groups {
 public:
  explicit Groups(size_t count) : parent_(count) {
    std::iota(parent_.begin(), parent_.end(), size_t{0});
  }
  size_t First(size_t i) {
    while (parent_[i] != i) i = parent_[i] = parent_[parent_[i]];
    return i;
  }
  void Join(size_t a, size_t b) {
    const auto [low, high] = std::minmax({First(a), First(b)});
    parent_[high] = low;
  }

 private:
  std::vector<size_t> parent_;
};

class Finder {
 public:
  Finder(const std::vector<std::string>& texts, double threshold, ThreadPool* pool)
      : texts_(texts),
        threshold_(threshold),
        pool_(pool),
        groups_(texts.size()),
        found_(texts.size()) {}

  Result<std::vector<Duplicate>> Find(Progress* progress) {
    MatchExact();
    Prepare();
    for (size_t band = 0; band < kBands; ++band) {
      progress->Update("duplicates", band, kBands);
      if (progress->Cancelled()) return Error{Code::kCancelled, "the search was cancelled"};
      MatchBand(band);
    }
    progress->Update("duplicates", kBands, kBands);
    for (size_t i = 0; i < texts_.size(); ++i) found_[i].original = groups_.First(i);
    return std::move(found_);
  }

 private:
  void MatchExact() {
    std::unordered_map<std::string_view, size_t> first;
    for (size_t i = 0; i < texts_.size(); ++i) {
      const auto [at, is_new] = first.emplace(texts_[i], i);
      if (is_new) {
        distinct_.push_back(i);
      } else {
        groups_.Join(at->second, i);
        found_[i] = {at->second, 1, true};
      }
    }
  }

  void Prepare() {
    sets_.resize(distinct_.size());
    bands_.resize(distinct_.size());
    pool_->ParallelFor(distinct_.size(), 16, [&](size_t begin, size_t end, int) {
      for (size_t i = begin; i < end; ++i) {
        sets_[i] = NgramHashes(Words(texts_[distinct_[i]]), kShingleWords);
        SortUnique(&sets_[i]);
        bands_[i] = Signature(sets_[i]);
      }
    });
  }

  void MatchBand(size_t band) {
    std::unordered_map<uint64_t, std::deque<size_t>> buckets;
    for (size_t i = 0; i < distinct_.size(); ++i) {
      if (sets_[i].empty()) continue;
      std::deque<size_t>& bucket = buckets[bands_[i][band]];
      for (const size_t other : bucket) Compare(other, i);
      bucket.push_back(i);
      // The first stays: a template's copies are compared with their source.
      if (bucket.size() > kMaxCompared) bucket.erase(bucket.begin() + 1);
    }
  }

  void Compare(size_t a, size_t b) {
    const size_t i = distinct_[a], j = distinct_[b];
    if (groups_.First(i) == groups_.First(j)) return;
    const double similarity = Jaccard(sets_[a], sets_[b]);
    if (similarity < threshold_) return;
    groups_.Join(i, j);
    for (const size_t member : {i, j}) {
      found_[member].similarity = std::max(found_[member].similarity, similarity);
    }
  }

  const std::vector<std::string>& texts_;
  double threshold_;
  ThreadPool* pool_;
  Groups groups_;
  std::vector<Duplicate> found_;
  std::vector<size_t> distinct_;             // the first text of each content
  std::vector<std::vector<uint64_t>> sets_;  // their trigrams, ascending
  std::vector<Bands> bands_;
};

}  // namespace

Result<std::vector<Duplicate>> FindDuplicates(const std::vector<std::string>& texts,
                                              double threshold, ThreadPool* pool,
                                              Progress* progress) {
  return Finder(texts, threshold, pool).Find(progress);
}

}  // namespace edgewise
