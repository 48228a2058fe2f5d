// BatchReader: the documents of a corpus, shuffled anew for each pass over it, as packed batches.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/result.h"
#include "train/batch.h"
#include "train/corpus.h"

namespace edgewise::train {

struct BatchOptions {
  size_t tokens = 4096;   // of a batch
  size_t sequence = 256;  // the most of a sequence; longer documents are cut into several
  uint64_t seed = 1;      // of the order
  // No batch cuts a sequence, so that each token has the same context in every epoch, from a
  // multiple of `sequence` in its document; batches are at most `tokens` long then.
  bool whole = false;
  bool in_order = false;  // as the corpus has them; a batch ends where an epoch does
};

// Puts `order` into the order of an epoch, which the two numbers decide.
void ShuffleForEpoch(uint64_t seed, uint64_t epoch, std::vector<uint32_t>* order);

// Where the next batch begins, so that reading can go on in another process.
struct ReaderPosition {
  uint64_t epoch = 0;     // passes over the corpus that are finished
  uint64_t document = 0;  // in the order of this epoch
  uint64_t token = 0;     // of that document
  bool operator==(const ReaderPosition&) const = default;
};

// Not thread-safe. The corpus must outlive it.
class BatchReader {
 public:
  // Errors: kInvalidArgument (no document has a token to learn, sizes below 2, batches that hold
  // no whole sequence).
  static Result<BatchReader> Create(const Corpus& corpus, const BatchOptions& options);

  // Returns a batch of options.tokens tokens. A sequence is a document or a piece of one, and the
  // last one may be cut short: the rest of it begins the next batch. See BatchOptions for others.
  Batch Next();
  const ReaderPosition& position() const { return position_; }
  // Errors: kInvalidArgument (the corpus has no such place).
  Status Seek(const ReaderPosition& position);

 private:
  BatchReader(const Corpus& corpus, const BatchOptions& options);
  void Shuffle();
  void EndDocument();
  const Corpus* corpus_;
  BatchOptions options_;
  ReaderPosition position_;
  std::vector<uint32_t> order_;  // of the documents in this epoch
};

// The documents of `corpus` in their order, cut into batches of at most `tokens` tokens: each once.
// Errors: as BatchReader::Create.
Result<std::vector<Batch>> AllBatches(const Corpus& corpus, const BatchOptions& options);

}  // namespace edgewise::train
