// Corpus: the documents that a model learns from, as tokens.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "base/check.h"

namespace edgewise::train {

// Documents in the order in which they were read. A token that is not `learned` is context only: it
// is no target, as those of a prompt.
class Corpus {
 public:
  // `learned` has a value for each token.
  void Append(std::span<const int32_t> tokens, std::span<const uint8_t> learned) {
    EW_CHECK(tokens.size() == learned.size());
    tokens_.insert(tokens_.end(), tokens.begin(), tokens.end());
    learned_.insert(learned_.end(), learned.begin(), learned.end());
    ends_.push_back(tokens_.size());
  }
  void Append(std::span<const int32_t> tokens) {
    const std::vector<uint8_t> all(tokens.size(), 1);
    Append(tokens, all);
  }

  size_t size() const { return ends_.size(); }
  size_t token_count() const { return tokens_.size(); }
  std::span<const int32_t> tokens(size_t document) const {
    return std::span(tokens_).subspan(Begin(document), Length(document));
  }
  std::span<const uint8_t> learned(size_t document) const {
    return std::span(learned_).subspan(Begin(document), Length(document));
  }

 private:
  size_t Begin(size_t document) const { return document == 0 ? 0 : ends_[document - 1]; }
  size_t Length(size_t document) const { return ends_[document] - Begin(document); }
  std::vector<int32_t> tokens_;
  std::vector<uint8_t> learned_;
  std::vector<size_t> ends_;  // of the documents
};

}  // namespace edgewise::train
