#include "pipeline/cache_teacher.h"

#include <algorithm>
#include <atomic>
#include <utility>

#include "base/file.h"
#include "base/process.h"
#include "base/sha256.h"
#include "base/strings.h"
#include "pipeline/output_path.h"
#include "pipeline/provenance.h"
#include "pipeline/run_journal.h"
#include "pipeline/source_hash.h"
#include "pipeline/train_inputs.h"

namespace edgewise {
namespace {

using U64 = unsigned long long;
using train::Batch;
using train::BatchReader;
using train::TeacherCacheInfo;

Status CheckJob(const CacheTeacherJob& job) {
  const bool going_on = job.resume && FileExists(JournalFolder(job.out));
  if (job.dry_run) return Ok{};
  for (const std::string* input : {&job.teacher, &job.data}) {
    EW_TRY(CheckOutput(*input, job.out, job.overwrite || going_on));
  }
  return Ok{};
}

// Computes the records of batches.
class Recorder {
 public:
  Recorder(const TeacherCacheInfo& info, train::Teacher* teacher, ThreadPool* pool)
      : info_(info), teacher_(teacher), pool_(pool) {}
  // Returns the records of all targets of the batch, valid until the next call.
  Result<std::span<const std::byte>> Run(const Batch& batch) {
    records_.resize(batch.CountTargets() * info_.shape.record_bytes());
    size_t done = 0;
    EW_TRY(train::EachTeacherRows(teacher_, batch, info_.shape.vocabulary,
                                  [&](std::span<const uint32_t> rows, float* logits) -> Status {
                                    std::byte* first =
                                        records_.data() + done * info_.shape.record_bytes();
                                    done += rows.size();
                                    return Encode(rows.size(), logits, first);
                                  }));
    return std::span<const std::byte>(records_);
  }

 private:
  Status Encode(size_t count, const float* logits, std::byte* records) {
    std::atomic<bool> finite = true;
    pool_->ParallelFor(count, 1, [&](size_t begin, size_t end, int) {
      for (size_t i = begin; i < end; ++i) {
        const Status status =
            train::EncodeTopK(info_.shape, info_.temperature, logits + i * info_.shape.vocabulary,
                              records + i * info_.shape.record_bytes());
        if (!status) finite = false;
      }
    });
    if (finite) return Ok{};
    return MakeError(Code::kBadData, "the teacher's logits are not finite");
  }
  const TeacherCacheInfo& info_;
  train::Teacher* teacher_;
  ThreadPool* pool_;
  std::vector<std::byte> records_;
};

// The batches of the corpus, in its order.
Result<BatchReader> InOrder(const train::Corpus& corpus, train::BatchOptions options) {
  options.whole = options.in_order = true;
  return BatchReader::Create(corpus, options);
}

// Writes what `writer` lacks.
Status WriteRecords(const train::Corpus& corpus, const train::BatchOptions& options,
                    const TeacherCacheInfo& info, Recorder* recorder,
                    train::TeacherCacheWriter* writer, Progress* progress) {
  EW_TRY(BatchReader reader, InOrder(corpus, options));
  uint64_t first = 0;  // target of the batch
  while (first < info.targets) {
    const Batch batch = reader.Next();
    const uint64_t end = first + batch.CountTargets();
    if (end > writer->records()) {
      EW_TRY(const auto records, recorder->Run(batch));
      EW_TRY(
          writer->Append(records.subspan((writer->records() - first) * info.shape.record_bytes())));
      progress->Update("caching the teacher", end, info.targets);
    }
    first = end;
    if (first < info.targets && progress->Cancelled()) {
      return MakeError(Code::kCancelled,
                       "stopped after %llu of %llu tokens; pass --resume to go on",
                       static_cast<U64>(first), static_cast<U64>(info.targets));
    }
  }
  return writer->Finish();
}

// Times one batch.
Status Predict(const train::Corpus& corpus, const train::BatchOptions& options, Recorder* recorder,
               CacheTeacherSummary* summary) {
  EW_TRY(BatchReader reader, InOrder(corpus, options));
  Batch batch = reader.Next();
  while (batch.CountTargets() == 0) batch = reader.Next();
  EW_TRY(recorder->Run(batch));  // the first one touches the memory
  const double start = NowSeconds();
  EW_TRY(recorder->Run(batch));
  summary->tokens_per_s =
      static_cast<double>(batch.CountTargets()) / std::max(NowSeconds() - start, 1e-9);
  summary->seconds = static_cast<double>(summary->targets) / summary->tokens_per_s;
  return Ok{};
}

Json RunRecipe(const CacheTeacherJob& job, const TeacherCacheInfo& info) {
  Json recipe{JsonObject{}};
  recipe.Set("command", "distill cache").Set("top", info.shape.k);
  recipe.Set("temperature", info.temperature).Set("sequence", info.sequence);
  recipe.Set("engine", info.engine);
  if (job.format.format) recipe.Set("format", train::DatasetFormatName(*job.format.format));
  return recipe;
}

// True when an earlier run wrote the whole output and stopped before it removed its journal.
bool IsFinished(const std::string& out, const std::string& part, const TeacherCacheInfo& info,
                ThreadPool* pool, Progress* progress) {
  if (FileExists(part) || !FileExists(out)) return false;
  const auto cache = train::TeacherCache::Open(out, pool, progress);
  return cache && cache->info() == info;
}

}  // namespace

std::string VocabularyDigest(const Tokenizer& tokenizer) {
  Sha256 sha;
  for (const std::string& token : tokenizer.vocab().tokens) {
    const uint64_t size = token.size();
    sha.Update(std::as_bytes(std::span(&size, 1)));
    sha.Update(std::as_bytes(std::span(token.data(), token.size())));
  }
  return ToHex(sha.Finish());
}

Status CheckCacheFits(const TeacherCacheInfo& cache, const CacheUse& use) {
  if (cache.shape.vocabulary != use.vocabulary ||
      cache.vocabulary != VocabularyDigest(use.tokenizer)) {
    return MakeError(Code::kInvalidArgument,
                     "its teacher has another vocabulary (%u tokens) than the student (%u): "
                     "distillation needs the same one",
                     cache.shape.vocabulary, use.vocabulary);
  }
  if (cache.sequence != use.sequence) {
    return MakeError(Code::kInvalidArgument,
                     "its teacher saw sequences of %llu tokens, and the student would see %llu; "
                     "pass --sequence %llu, or make another cache",
                     static_cast<U64>(cache.sequence), static_cast<U64>(use.sequence),
                     static_cast<U64>(cache.sequence));
  }
  if (cache.temperature != use.temperature) {
    return MakeError(Code::kInvalidArgument,
                     "its probabilities are at the temperature %g, not %g; pass --temperature %g, "
                     "or make another cache",
                     cache.temperature, use.temperature, cache.temperature);
  }
  if (cache.corpus == train::CorpusDigest(use.corpus)) return Ok{};
  EW_TRY(const auto digests, FileDigests({use.data}, [] { return false; }));
  if (cache.data == digests[0]) {
    return MakeError(Code::kInvalidArgument,
                     "it was made of %s read in another way: give the same --format and a student "
                     "with the teacher's tokenizer and chat template",
                     use.data.c_str());
  }
  return MakeError(Code::kInvalidArgument,
                   "it was not made of %s; make one of it with `edgewise distill cache`",
                   use.data.c_str());
}

Result<CacheTeacherSummary> CacheTeacher(const CacheTeacherJob& job, Progress* progress) {
  const double start = NowSeconds();
  EW_TRY(CheckJob(job));
  EW_TRY(const Checkpoint teacher, Checkpoint::Open(job.teacher));
  EW_TRY(CheckContext(teacher, job.options.batch.sequence, "teacher"));
  EW_TRY(const auto tokenizer, OpenTokenizer(teacher, job.tokenizer_path));
  EW_TRY(const train::Dataset data,
         train::ReadDataset(job.data, *tokenizer, tokenizer->vocab().chat_template, job.format));
  EW_TRY(InOrder(data.corpus, job.options.batch).In(job.data));
  TeacherCacheInfo info;
  info.targets = train::TargetIndex(data.corpus).size();
  info.shape = {job.top_k, teacher.spec().vocab_size};
  info.temperature = job.temperature;
  info.sequence = job.options.batch.sequence;
  info.engine = TeacherEngineName(job.options);
  EW_TRY(train::CheckCacheInfo(info));

  CacheTeacherSummary summary;
  summary.output = job.out;
  summary.engine = info.engine;
  summary.documents = data.corpus.size();
  summary.targets = info.targets;
  summary.record_bytes = info.shape.record_bytes();
  summary.bytes = info.blocks() * info.block_bytes();
  summary.bad_row_count = data.bad_row_count;
  summary.bad_rows = DescribeBadRows(job.data, data);
  ReleaseFreeMemory();
  summary.memory_bytes = ReadMemoryUse().rss_bytes + TeacherBytes(teacher, job.options);
  ThreadPool pool(job.threads > 0 ? job.threads : ThreadPool::AvailableCpus());
  EW_TRY(const auto live, LiveTeacher::Create(teacher, job.options, &pool).In(job.teacher));
  Recorder recorder(info, live->get(), &pool);
  if (job.dry_run) {
    EW_TRY(Predict(data.corpus, job.options.batch, &recorder, &summary));
    summary.peak_rss_bytes = ReadMemoryUse().peak_rss_bytes;
    return summary;
  }

  EW_TRY(std::vector<std::string> files, SourceFiles(teacher, job.tokenizer_path));
  EW_TRY(std::vector<std::string> digests,
         FileDigests(files, [&] { return progress->Cancelled(); }));
  info.teacher = Combine(files, digests).digest;
  EW_TRY(const auto data_digest, FileDigests({job.data}, [&] { return progress->Cancelled(); }));
  info.data = data_digest[0];
  files.push_back(job.data);
  digests.push_back(info.data);
  info.vocabulary = VocabularyDigest(*tokenizer);
  info.corpus = train::CorpusDigest(data.corpus);
  const Json recipe = RunRecipe(job, info);
  Json run = recipe;
  run.Set("version", EDGEWISE_VERSION);
  run.Set("teacher", info.teacher).Set("data", info.data).Set("tokens", info.corpus);
  EW_TRY(RunJournal journal,
         RunJournal::Open(job.out, run, {.resume = job.resume, .replace = job.overwrite}));
  const std::string part = journal.folder() + "/cache.gguf";
  const double begin = NowSeconds();
  if (journal.resumed() && IsFinished(job.out, part, info, &pool, progress)) {
    summary.resumed_targets = info.targets;
  } else {
    Metadata metadata;
    SetProvenance(recipe, Combine(files, digests), &metadata);
    EW_TRY(auto writer, train::TeacherCacheWriter::Open(part, info, std::move(metadata)));
    summary.resumed_targets = writer.records();
    EW_TRY(WriteRecords(data.corpus, job.options.batch, info, &recorder, &writer, progress)
               .In(job.teacher));
    EW_TRY(train::TeacherCache::Open(part, &pool, progress));
    EW_TRY(RenameFile(part, job.out));
  }
  journal.Remove();
  EW_TRY(const MappedFile written, MappedFile::Open(job.out));
  summary.bytes = written.bytes().size();
  summary.tokens_per_s = static_cast<double>(info.targets - summary.resumed_targets) /
                         std::max(NowSeconds() - begin, 1e-9);
  summary.seconds = NowSeconds() - start;
  summary.peak_rss_bytes = ReadMemoryUse().peak_rss_bytes;
  return summary;
}

Json ToJson(const CacheTeacherSummary& s) {
  Json json{JsonObject{}};
  json.Set("output", s.output).Set("bytes", s.bytes).Set("documents", s.documents);
  json.Set("tokens", s.targets).Set("resumed_tokens", s.resumed_targets);
  json.Set("bytes_per_token", s.record_bytes).Set("engine", s.engine);
  json.Set("bad_row_count", s.bad_row_count);
  json.Set("bad_rows", JsonArray(s.bad_rows.begin(), s.bad_rows.end()));
  json.Set("tokens_per_s", s.tokens_per_s).Set("seconds", s.seconds);
  json.Set("memory_bytes", s.memory_bytes).Set("peak_rss_bytes", s.peak_rss_bytes);
  return json;
}

}  // namespace edgewise
