// Making a teacher cache from files (train/teacher_cache.h).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/json.h"
#include "base/progress.h"
#include "base/result.h"
#include "pipeline/live_teacher.h"
#include "text/tokenizer.h"
#include "train/corpus.h"
#include "train/dataset.h"
#include "train/teacher_cache.h"

namespace edgewise {

struct CacheTeacherJob {
  std::string teacher;  // a checkpoint
  std::string data;     // train/dataset.h; all of its documents
  std::string out;
  std::string tokenizer_path;
  train::DatasetOptions format;
  uint32_t top_k = 64;
  double temperature = 1;
  TeacherOptions options;
  int threads = 0;
  bool resume = false;
  bool overwrite = false;
  bool dry_run = false;
};

struct CacheTeacherSummary {
  std::string output, engine;
  uint64_t documents = 0, targets = 0, resumed_targets = 0;
  uint64_t record_bytes = 0;  // of a target
  uint64_t bytes = 0;         // of the file
  uint64_t bad_row_count = 0;
  std::vector<std::string> bad_rows;  // as in TrainSummary
  double tokens_per_s = 0;            // targets of this process; in a dry run of a trial
  double seconds = 0;                 // in a dry run as predicted
  uint64_t memory_bytes = 0;          // at the peak, as planned
  uint64_t peak_rss_bytes = 0;
};

// Runs the teacher over all targets of the data and keeps what it says of them in `job.out`. Blocks
// that are finished are kept in "OUT.journal", so that a run that was stopped or killed goes on
// with `resume` to the same bytes, for any number of threads. Errors: kInvalidArgument (an option
// out of range, the output exists, nothing to learn), those of Checkpoint::Open, LoadVocab,
// ReadDataset, LiveTeacher and TeacherCacheWriter, kCancelled.
Result<CacheTeacherSummary> CacheTeacher(const CacheTeacherJob& job, Progress* progress);

// SHA-256 of the text of every token, in hexadecimals: what CheckSameVocabulary compares.
std::string VocabularyDigest(const Tokenizer& tokenizer);

// What a student learns from a cache with.
struct CacheUse {
  const Tokenizer& tokenizer;
  uint32_t vocabulary;  // of the student
  const std::string& data;
  const train::Corpus& corpus;  // all of the data
  uint64_t sequence;
  double temperature;
};
// Errors: kInvalidArgument (the cache is of other tokens, data, sequences or another temperature),
// kIo.
Status CheckCacheFits(const train::TeacherCacheInfo& cache, const CacheUse& use);

// The members of `edgewise distill cache --json`.
Json ToJson(const CacheTeacherSummary& summary);

}  // namespace edgewise
