#include "train/batch_reader.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "base/rng.h"
#include "base/strings.h"

namespace edgewise::train {
namespace {

// Appends tokens [first, first + count) of a document. Each is to be followed by the document's
// next token, where that is learned.
void AppendPiece(const Corpus& corpus, size_t document, size_t first, size_t count, Batch* batch) {
  const auto tokens = corpus.tokens(document);
  const auto learned = corpus.learned(document);
  for (size_t i = first; i < first + count; ++i) {
    const bool target = i + 1 < tokens.size() && learned[i + 1] != 0;
    batch->tokens.push_back(tokens[i]);
    batch->targets.push_back(target ? tokens[i + 1] : kNoTarget);
  }
  batch->lengths.push_back(static_cast<uint32_t>(count));
  batch->origins.push_back({document, first});
}

// Tokens that are followed by another: the last of a document is only a target.
size_t Usable(const Corpus& corpus, size_t document) {
  const size_t size = corpus.tokens(document).size();
  return size > 0 ? size - 1 : 0;
}

Status Check(const Corpus& corpus, const BatchOptions& options) {
  if (options.tokens < 2 || options.sequence < 2) {
    return MakeError(Code::kInvalidArgument,
                     "batches of %zu tokens in sequences of %zu: both must be at least 2",
                     options.tokens, options.sequence);
  }
  if (options.whole && options.tokens < options.sequence) {
    return MakeError(Code::kInvalidArgument,
                     "batches of %zu tokens hold no whole sequence of %zu: give larger batches",
                     options.tokens, options.sequence);
  }
  for (size_t d = 0; d < corpus.size(); ++d) {
    const auto learned = corpus.learned(d);
    if (learned.size() < 2) continue;
    if (std::count(learned.begin() + 1, learned.end(), uint8_t{0}) !=
        static_cast<long>(learned.size()) - 1) {
      return Ok{};
    }
  }
  return MakeError(Code::kInvalidArgument, "there is nothing to learn in %zu documents",
                   corpus.size());
}

}  // namespace

void ShuffleForEpoch(uint64_t seed, uint64_t epoch, std::vector<uint32_t>* order) {
  Rng rng(seed + epoch * 0x9e3779b97f4a7c15u);
  for (size_t i = order->size(); i > 1; --i) std::swap((*order)[i - 1], (*order)[rng.Below(i)]);
}

BatchReader::BatchReader(const Corpus& corpus, const BatchOptions& options)
    : corpus_(&corpus), options_(options), order_(corpus.size()) {
  Shuffle();
}

Result<BatchReader> BatchReader::Create(const Corpus& corpus, const BatchOptions& options) {
  EW_TRY(Check(corpus, options));
  return BatchReader(corpus, options);
}

void BatchReader::Shuffle() {
  std::iota(order_.begin(), order_.end(), 0u);
  if (!options_.in_order) ShuffleForEpoch(options_.seed, position_.epoch, &order_);
}

void BatchReader::EndDocument() {
  position_.token = 0;
  if (++position_.document < order_.size()) return;
  position_.document = 0;
  ++position_.epoch;
  Shuffle();
}

Batch BatchReader::Next() {
  Batch batch;
  while (batch.size() < options_.tokens) {
    const size_t document = order_[position_.document];
    const size_t left = Usable(*corpus_, document) - position_.token;
    const size_t piece = std::min(left, options_.sequence);
    const size_t count = std::min(piece, options_.tokens - batch.size());
    if (options_.whole && count < piece) break;
    if (count > 0) AppendPiece(*corpus_, document, position_.token, count, &batch);
    position_.token += count;
    if (count < left) continue;
    EndDocument();
    if (options_.in_order && position_.document == 0) break;
  }
  return batch;
}

Status BatchReader::Seek(const ReaderPosition& position) {
  if (position.document >= corpus_->size()) {
    return MakeError(Code::kInvalidArgument, "the corpus has %zu documents, not %llu",
                     corpus_->size(), static_cast<unsigned long long>(position.document));
  }
  position_ = position;
  Shuffle();
  if (position.token > Usable(*corpus_, order_[position.document])) {
    return MakeError(Code::kInvalidArgument, "document %llu has no token %llu",
                     static_cast<unsigned long long>(position.document),
                     static_cast<unsigned long long>(position.token));
  }
  return Ok{};
}

Result<std::vector<Batch>> AllBatches(const Corpus& corpus, const BatchOptions& options) {
  EW_TRY(Check(corpus, options));
  std::vector<Batch> batches(1);
  for (size_t d = 0; d < corpus.size(); ++d) {
    const size_t usable = Usable(corpus, d);
    for (size_t first = 0; first < usable; first += options.sequence) {
      const size_t count = std::min({options.sequence, usable - first, options.tokens});
      if (batches.back().size() + count > options.tokens) batches.emplace_back();
      AppendPiece(corpus, d, first, count, &batches.back());
    }
  }
  std::erase_if(batches, [](const Batch& batch) { return batch.CountTargets() == 0; });
  return batches;
}

}  // namespace edgewise::train
