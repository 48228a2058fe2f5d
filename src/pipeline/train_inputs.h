// What a training job reads before it begins.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/progress.h"
#include "base/result.h"
#include "base/thread_pool.h"
#include "model/checkpoint.h"
#include "pipeline/source_hash.h"
#include "pipeline/train_job.h"
#include "text/tokenizer.h"
#include "train/corpus.h"
#include "train/dataset.h"
#include "train/teacher_cache.h"

namespace edgewise {

struct TrainInputs {
  std::optional<Checkpoint> model, teacher;
  std::optional<train::TeacherCache> cache;
  bool from_config = false;  // the model has no weights yet
  std::unique_ptr<Tokenizer> tokenizer;
  std::string tokenizer_path;  // of the output
  train::Corpus corpus, held_out;
  train::DatasetFormat format = train::DatasetFormat::kText;  // of the data
  uint64_t bad_row_count = 0;
  std::vector<std::string> bad_rows;
  // The files that decide the result, by what they are for: "model", "teacher", "cache",
  // "data" and "held-out data". Empty: none.
  std::vector<std::pair<const char*, std::vector<std::string>>> roles;
};

// Opens the models, checks that their vocabularies are one, and reads the data. Errors: those of
// Checkpoint::Open, LoadVocab, ReadDataset, TeacherCache::Open and CheckCacheFits; kInvalidArgument
// (the vocabularies differ, nothing can be held out).
Result<TrainInputs> ReadTrainInputs(const TrainJob& job, ThreadPool* pool, Progress* progress);

// The tokenizer of a model, or that at `tokenizer_path`. Errors: those of LoadVocab and
// Tokenizer::Create.
Result<std::unique_ptr<Tokenizer>> OpenTokenizer(const Checkpoint& model,
                                                 const std::string& tokenizer_path);
// "FILE, line N: problem" of the first bad rows of a file.
std::vector<std::string> DescribeBadRows(const std::string& path, const train::Dataset& data);
// Errors: kInvalidArgument (sequences longer than the context of this "model" or "teacher").
Status CheckContext(const Checkpoint& model, size_t sequence, const char* role);

struct TrainInputHashes {
  // The digest of each role's files, so that a run does not go on with others, or with two
  // exchanged.
  std::vector<std::pair<const char*, std::string>> roles;
  SourceHash all;
};
// Reads every file once. Errors: those of FileDigests.
Result<TrainInputHashes> HashTrainInputs(const TrainInputs& inputs, const Progress* progress);

}  // namespace edgewise
