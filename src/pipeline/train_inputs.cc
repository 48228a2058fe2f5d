#include "pipeline/train_inputs.h"

#include <algorithm>

#include "base/strings.h"
#include "engine/vocab_metadata.h"
#include "pipeline/cache_teacher.h"

namespace edgewise {
namespace {

using train::Corpus;

constexpr size_t kHeldOutShare = 50;  // of the documents one in so many, where no file is given

Result<Checkpoint> OpenModel(const std::string& path) {
  return IsModelConfig(path) ? Checkpoint::FromConfig(path) : Checkpoint::Open(path);
}

// Reads a training file; what is wrong with its rows goes to `in`.
Result<Corpus> ReadCorpus(const std::string& path, const train::DatasetOptions& options,
                          TrainInputs* in) {
  const std::string& chat_template = in->tokenizer->vocab().chat_template;
  EW_TRY(train::Dataset data, train::ReadDataset(path, *in->tokenizer, chat_template, options));
  in->format = data.format;
  in->bad_row_count += data.bad_row_count;
  const std::vector<std::string> rows = DescribeBadRows(path, data);
  in->bad_rows.insert(in->bad_rows.end(), rows.begin(), rows.end());
  return std::move(data.corpus);
}

void SplitHeldOut(const Corpus& all, Corpus* corpus, Corpus* held_out) {
  const size_t kept = all.size() - std::max<size_t>(all.size() > 1, all.size() / kHeldOutShare);
  for (size_t d = 0; d < all.size(); ++d) {
    (d < kept ? corpus : held_out)->Append(all.tokens(d), all.learned(d));
  }
}

// A teacher's probabilities are of its own tokens.
Status CheckTeacher(const TrainJob& job, const TrainInputs& in) {
  const ModelSpec &teacher = in.teacher->spec(), &student = in.model->spec();
  if (teacher.vocab_size != student.vocab_size) {
    return MakeError(Code::kInvalidArgument,
                     "%s gives probabilities of %u tokens and %s of %u: distillation needs the "
                     "same vocabulary",
                     job.teacher.c_str(), teacher.vocab_size, job.model.c_str(),
                     student.vocab_size);
  }
  auto tokenizer = OpenTokenizer(*in.teacher, "");
  // One that brings no tokenizer has the student's, as far as anyone can tell.
  if (!tokenizer && tokenizer.error().code == Code::kNotFound) return Ok{};
  EW_TRY(const auto own, std::move(tokenizer));
  return CheckSameVocabulary(*own, *in.tokenizer)
      .In("a teacher's probabilities are of its own tokens");
}

}  // namespace

Result<std::unique_ptr<Tokenizer>> OpenTokenizer(const Checkpoint& model,
                                                 const std::string& tokenizer_path) {
  EW_TRY(Vocab vocab, LoadVocab(model, tokenizer_path));
  return Tokenizer::Create(std::move(vocab));
}

std::vector<std::string> DescribeBadRows(const std::string& path, const train::Dataset& data) {
  std::vector<std::string> rows;
  for (const train::BadRow& row : data.bad_rows) {
    rows.push_back(Format("%s, line %llu: %s", path.c_str(),
                          static_cast<unsigned long long>(row.line), row.problem.c_str()));
  }
  return rows;
}

Status CheckContext(const Checkpoint& model, size_t sequence, const char* role) {
  if (sequence <= model.spec().context_length) return Ok{};
  return MakeError(Code::kInvalidArgument,
                   "sequences of %zu tokens are longer than the %s's context of %u", sequence, role,
                   model.spec().context_length);
}

Result<TrainInputs> ReadTrainInputs(const TrainJob& job, ThreadPool* pool, Progress* progress) {
  TrainInputs in;
  in.from_config = IsModelConfig(job.model);
  if (job.student != nullptr) {
    in.model = *job.student;
  } else {
    EW_TRY(in.model, OpenModel(job.model));
  }
  if (!job.teacher.empty()) {
    EW_TRY(in.teacher, Checkpoint::Open(job.teacher));
  }
  // A model without weights takes its teacher's tokenizer.
  const bool borrows = in.from_config && in.teacher && job.tokenizer_path.empty();
  in.tokenizer_path = borrows ? job.teacher : job.tokenizer_path;
  EW_TRY(in.tokenizer, OpenTokenizer(*in.model, in.tokenizer_path));
  if (in.teacher) EW_TRY(CheckTeacher(job, in));
  if (!job.held_out.empty()) {
    EW_TRY(in.held_out, ReadCorpus(job.held_out, job.format, &in));
  }
  EW_TRY(Corpus all, ReadCorpus(job.data, job.format, &in));
  if (!job.cache.empty()) {
    EW_TRY(in.cache, train::TeacherCache::Open(job.cache, pool, progress));
    const CacheUse use = {*in.tokenizer, in.model->spec().vocab_size, job.data,
                          all,           job.trainer.batch.sequence,  job.loss.temperature};
    EW_TRY(CheckCacheFits(in.cache->info(), use).In(job.cache));
  }
  if (job.held_out.empty()) {
    SplitHeldOut(all, &in.corpus, &in.held_out);
  } else {
    in.corpus = std::move(all);
  }
  if (in.held_out.size() == 0) {
    return MakeError(Code::kInvalidArgument,
                     "%s: is one document, of which nothing can be held out; name other data with "
                     "--held-out",
                     job.data.c_str());
  }
  std::vector<std::string> model, teacher, cache, held_out;
  EW_TRY(model, SourceFiles(*in.model, in.tokenizer_path));
  if (in.teacher) {
    EW_TRY(teacher, SourceFiles(*in.teacher, ""));
  }
  if (!job.cache.empty()) cache = {job.cache};
  if (!job.held_out.empty()) held_out = {job.held_out};
  in.roles = {{"model", std::move(model)},
              {"teacher", std::move(teacher)},
              {"cache", std::move(cache)},
              {"data", {job.data}},
              {"held-out data", std::move(held_out)}};
  return in;
}

Result<TrainInputHashes> HashTrainInputs(const TrainInputs& inputs, const Progress* progress) {
  std::vector<std::string> files;
  for (const auto& [role, own] : inputs.roles) files.insert(files.end(), own.begin(), own.end());
  std::sort(files.begin(), files.end());
  files.erase(std::unique(files.begin(), files.end()), files.end());
  EW_TRY(const std::vector<std::string> digests,
         FileDigests(files, [&] { return progress->Cancelled(); }));
  TrainInputHashes hashes{{}, Combine(files, digests)};
  for (const auto& [role, own] : inputs.roles) {
    std::vector<std::string> of_role;
    for (const std::string& path : own) {
      const auto at = std::lower_bound(files.begin(), files.end(), path) - files.begin();
      of_role.push_back(digests[static_cast<size_t>(at)]);
    }
    hashes.roles.emplace_back(role, own.empty() ? "" : Combine(own, of_role).digest);
  }
  return hashes;
}

}  // namespace edgewise
