#include "pipeline/calibrate.h"

#include <unistd.h>

#include <algorithm>
#include <optional>
#include <utility>

#include "base/file.h"
#include "base/process.h"
#include "base/strings.h"
#include "pipeline/output_path.h"

namespace edgewise {
namespace {

Status CheckSameText(const CalibrationFile& part, const CalibrationOrigin& origin) {
  if (part.origin().model_sha256 == origin.model_sha256 && part.origin().texts == origin.texts) {
    return Ok{};
  }
  return MakeError(Code::kInvalidArgument,
                   "%s: was made from another model or text; remove it, or leave --resume out",
                   part.path().c_str());
}

// Sequences from `first` on with at least `tokens` tokens together, as far as there are.
TokenSequences Take(const TokenSequences& all, size_t first, uint64_t tokens) {
  TokenSequences part;
  uint64_t count = 0;
  for (size_t i = first; i < all.size() && count < tokens; ++i) {
    part.push_back(all[i]);
    count += all[i].size();
  }
  return part;
}

Result<CalibrationSummary> Summarize(const std::string& path) {
  EW_TRY(const CalibrationFile file, CalibrationFile::Open(path));
  CalibrationSummary summary;
  summary.output = path;
  summary.origin = file.origin();
  summary.weights = file.weights().size();
  summary.hessians = file.HasHessian(file.weights().front());
  EW_TRY(const MappedFile map, MappedFile::Open(path));
  summary.bytes = map.bytes().size();
  summary.peak_rss_bytes = ReadMemoryUse().peak_rss_bytes;
  return summary;
}

// The sums of all sequences, part by part.
Status RunParts(const Checkpoint& checkpoint, const TokenSequences& sequences,
                const CalibrationOrigin& origin, const std::string& out_path,
                const RunCalibrationOptions& options, uint64_t* resumed, ThreadPool* pool,
                Progress* progress) {
  const std::string part_path = CalibrationPartPath(out_path);
  std::optional<CalibrationFile> previous;
  if (options.resume) {
    if (!FileExists(part_path)) {
      return MakeError(Code::kInvalidArgument, "%s: there is nothing to resume", part_path.c_str());
    }
    EW_TRY(previous, CalibrationFile::Open(part_path));
    EW_TRY(CheckSameText(*previous, origin));
    *resumed = previous->origin().tokens;
  }
  size_t done = previous ? previous->origin().sequences : 0;
  while (done < sequences.size()) {
    TokenSequences part = Take(sequences, done, options.part_tokens);
    done += part.size();
    const bool last = done == sequences.size();
    CalibrateOptions calibrate;
    calibrate.hessians = options.hessians;
    calibrate.previous = previous ? &*previous : nullptr;
    calibrate.overwrite = last ? options.overwrite : true;
    EW_TRY(Calibrate(checkpoint, std::move(part), origin, last ? out_path : part_path, calibrate,
                     pool, progress));
    if (last) break;
    EW_TRY(previous, CalibrationFile::Open(part_path));
  }
  if (FileExists(part_path)) ::unlink(part_path.c_str());
  return Ok{};
}

}  // namespace

std::string CalibrationPartPath(const std::string& out_path) { return out_path + ".part"; }

Result<CalibrationSummary> RunCalibration(const std::string& model_path,
                                          const std::string& out_path,
                                          const RunCalibrationOptions& options,
                                          Progress* progress) {
  EW_TRY(const Checkpoint model, Checkpoint::Open(model_path));
  return RunCalibration(model, out_path, options, progress);
}

Result<CalibrationSummary> RunCalibration(const Checkpoint& model, const std::string& out_path,
                                          const RunCalibrationOptions& options,
                                          Progress* progress) {
  const double start = NowSeconds();
  NoProgress silent;
  if (progress == nullptr) progress = &silent;
  EW_TRY(CheckOutput(model.path(), out_path, options.overwrite));
  EW_TRY(const TokenSequences sequences,
         ReadCalibrationText(model, options.tokenizer_path, options.text));
  CalibrationOrigin origin;
  SourceHash source;
  if (options.source != nullptr) {
    source = *options.source;
  } else {
    EW_TRY(const auto files, SourceFiles(model, options.tokenizer_path));
    EW_TRY(source, HashFiles(files, [&] { return progress->Cancelled(); }));
  }
  EW_TRY(const SourceHash text,
         HashFiles({options.text.path}, [&] { return progress->Cancelled(); }));
  origin.model_sha256 = source.digest;
  origin.texts = text.files;
  ThreadPool pool(options.threads > 0 ? options.threads : ThreadPool::AvailableCpus());
  uint64_t resumed = 0;
  EW_TRY(RunParts(model, sequences, origin, out_path, options, &resumed, &pool, progress)
             .In(model.path()));
  EW_TRY(CalibrationSummary summary, Summarize(out_path));
  summary.resumed_tokens = resumed;
  summary.seconds = NowSeconds() - start;
  return summary;
}

Result<CalibrationSummary> RunMerge(const std::vector<std::string>& paths,
                                    const std::string& out_path, bool overwrite) {
  const double start = NowSeconds();
  std::vector<CalibrationFile> files;
  for (const std::string& path : paths) {
    EW_TRY(CalibrationFile file, CalibrationFile::Open(path));
    files.push_back(std::move(file));
  }
  EW_TRY(MergeCalibrations(files, out_path, overwrite));
  EW_TRY(CalibrationSummary summary, Summarize(out_path));
  summary.seconds = NowSeconds() - start;
  return summary;
}

Json ToJson(const CalibrationSummary& summary) {
  Json json;
  Json texts{JsonArray{}};
  for (const std::string& text : summary.origin.texts) texts.Append(text);
  json.Set("output", summary.output)
      .Set("bytes", summary.bytes)
      .Set("weights", static_cast<uint64_t>(summary.weights))
      .Set("tokens", summary.origin.tokens)
      .Set("sequences", summary.origin.sequences)
      .Set("resumed_tokens", summary.resumed_tokens)
      .Set("hessians", summary.hessians)
      .Set("model_sha256", summary.origin.model_sha256)
      .Set("texts", std::move(texts))
      .Set("seconds", summary.seconds)
      .Set("peak_rss_bytes", summary.peak_rss_bytes);
  return json;
}

}  // namespace edgewise
