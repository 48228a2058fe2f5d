#include "pipeline/compress.h"

#include <algorithm>
#include <optional>
#include <span>
#include <utility>

#include "base/file.h"
#include "base/process.h"
#include "base/sha256.h"
#include "base/strings.h"
#include "formats/gguf.h"
#include "formats/gguf_header.h"
#include "kernels/kernels.h"
#include "model/checkpoint.h"
#include "pipeline/estimate.h"
#include "pipeline/output_path.h"
#include "pipeline/pass.h"
#include "pipeline/provenance.h"
#include "pipeline/quality_card.h"
#include "pipeline/run_journal.h"
#include "pipeline/source_hash.h"
#include "quant/packed.h"

namespace edgewise {
namespace {

// The digests of everything a recipe reads.
struct InputHashes {
  SourceHash model;
  std::string calibration, evaluation, passes;  // empty: not read
};

Result<std::string> HashText(const std::string& path, const Progress* progress) {
  if (path.empty()) return std::string();
  EW_TRY(const SourceHash hash, HashFiles({path}, [&] { return progress->Cancelled(); }));
  return hash.digest;
}

Result<InputHashes> HashInputs(const Recipe& recipe, const std::vector<std::string>& files,
                               const Progress* progress) {
  InputHashes hashes;
  EW_TRY(hashes.model, HashFiles(files, [&] { return progress->Cancelled(); }));
  EW_TRY(hashes.calibration, HashText(recipe.calibration.path, progress));
  EW_TRY(hashes.evaluation, HashText(recipe.evaluation.path, progress));
  if (!recipe.pass_files.empty()) {
    EW_TRY(const SourceHash hash,
           HashFiles(recipe.pass_files, [&] { return progress->Cancelled(); }));
    hashes.passes = hash.digest;
  }
  if (!hashes.evaluation.empty() && hashes.evaluation == hashes.calibration) {
    return MakeError(Code::kInvalidArgument,
                     "%s: is the calibration text too, so its measurement would flatter; give "
                     "another text for the evaluation",
                     recipe.evaluation.path.c_str());
  }
  return hashes;
}

InputHashes PlaceholderHashes(const Recipe& recipe, const std::vector<std::string>& files) {
  const std::string digest(64, '0');
  return {PlaceholderHash(files), recipe.calibration.path.empty() ? "" : digest,
          recipe.evaluation.path.empty() ? "" : digest, recipe.pass_files.empty() ? "" : digest};
}

// edgewise.recipe: the recipe, the texts' digests, and the kernels, which round activations in ways
// of their own.
Json RecipeRecord(const Recipe& recipe, const InputHashes& hashes) {
  Json record;
  record.Set("command", "compress").Set("kernels", kernels::Active().name);
  if (!hashes.calibration.empty()) record.Set("calibration_sha256", hashes.calibration);
  if (!hashes.evaluation.empty()) record.Set("evaluation_sha256", hashes.evaluation);
  if (!hashes.passes.empty()) record.Set("pass_files_sha256", hashes.passes);
  record.Set("recipe", recipe.json);
  return record;
}

// The keys of the output: those of the last pass's file, but the provenance is of the whole recipe.
Metadata OutputMetadata(const Recipe& recipe, const Metadata& source, const InputHashes& hashes,
                        const PassState& state) {
  Metadata metadata = state.metadata;
  Metadata before = source;
  PushHistory(&before);
  metadata.Erase("edgewise.history");
  if (const auto* history = before.FindStrings("edgewise.history")) {
    metadata.Set("edgewise.history", MetaArray(*history));
  }
  SetProvenance(RecipeRecord(recipe, hashes), hashes.model, &metadata);
  if (!state.card.is_null()) SetCard(state.card, recipe.evaluation, &metadata);
  return metadata;
}

std::vector<GgufTensorDecl> Declare(const PassState& state) {
  std::vector<GgufTensorDecl> declarations;
  for (const ConvertedTensor& tensor : state.tensors) {
    declarations.push_back({tensor.name, tensor.to, tensor.shape, tensor.layout});
  }
  return declarations;
}

// Writes the tensors of the GGUF `from` with other metadata.
Status CopyTensors(const std::string& from, const std::string& to, const Metadata& metadata,
                   std::vector<GgufTensorDecl> declarations, const Progress* progress) {
  EW_TRY(const GgufFile file, GgufFile::Open(from));
  EW_TRY(GgufWriter writer, GgufWriter::Create(to, true, metadata, std::move(declarations)));
  for (const NamedTensor& tensor : file.tensors().all()) {
    EW_TRY(const uint64_t bytes,
           TensorBytes(tensor.view.dtype, tensor.view.shape, tensor.view.layout));
    const std::span<const std::byte> data(static_cast<const std::byte*>(tensor.view.data), bytes);
    EW_TRY(writer.Write(data));
    file.map()->DropPages(data);
    if (progress->Cancelled()) return MakeError(Code::kCancelled, "stopped before the end");
  }
  return writer.Finish();
}

CompressSummary Summarize(const Recipe& recipe, const PassState& state) {
  CompressSummary summary;
  summary.output = recipe.output;
  summary.card = state.card;
  summary.tensors = state.tensors;
  for (const RecipeStep& step : recipe.passes) summary.passes.emplace_back(step.pass->name);
  for (const ConvertedTensor& tensor : state.tensors) {
    summary.tensor_bytes += tensor.bytes;
    summary.parameters += tensor.shape.elements();
  }
  summary.bits_per_weight =
      8.0 * static_cast<double>(summary.tensor_bytes) / static_cast<double>(summary.parameters);
  return summary;
}

struct JournalPlaces {
  std::string folder;
  std::string shared;  // CompressOptions::shared_folder
};

// Where pass `i` keeps its files.
std::string StemOf(const Recipe& recipe, size_t i, const JournalPlaces& places) {
  const Pass& pass = *recipe.passes[i].pass;
  const bool shared = recipe.passes[i].leaves == kFloatModel && !places.shared.empty();
  if (!shared) return Format("%s/%zu-%s", places.folder.c_str(), i + 1, pass.name);
  std::string done;
  if (const Json* calibration = recipe.json.Find("calibration")) done = calibration->Dump();
  for (size_t j = 0; j <= i; ++j) done += recipe.json.Find("passes")->AsArray()->at(j).Dump();
  const std::string digest = Sha256Hex(std::as_bytes(std::span(done)));
  return Format("%s/%s-%s", places.shared.c_str(), digest.c_str(), pass.name);
}

// `context.stem` is made here for each pass. `measure`: CompressOptions.
Status RunPasses(const JournalPlaces& places, bool measure, PassContext context, PassState* state) {
  const Recipe& recipe = context.recipe;
  for (size_t i = 0; i < recipe.passes.size(); ++i) {
    const RecipeStep& step = recipe.passes[i];
    if (!measure && step.pass == FindPass("eval")) continue;
    context.stem = StemOf(recipe, i, places);
    EW_TRY(step.pass->run(step.arguments, context, state).In(step.pass->name));
    if (context.progress->Cancelled()) {
      return MakeError(Code::kCancelled, "stopped before the end");
    }
  }
  return Ok{};
}

// True when the file at `path` is the one that a run with these `keys` writes, as its metadata say:
// a run that has come to its end, or was killed after its last step.
bool IsResult(const std::string& path, const Metadata& keys) {
  const auto file = GgufFile::Open(path);
  if (!file) return false;
  for (const char* key : {"edgewise.version", "edgewise.recipe", "edgewise.source.sha256"}) {
    const auto found = file->metadata().GetString(key), wanted = keys.GetString(key);
    if (!found || !wanted || *found != *wanted) return false;
  }
  return true;
}

// What decides the result, as the journal keeps it.
Json RunIdentity(const Recipe& recipe, const InputHashes& hashes) {
  Json run;
  run.Set("version", EDGEWISE_VERSION)
      .Set("kernels", kernels::Active().name)
      .Set("model", hashes.model.digest)
      .Set("calibration text", hashes.calibration)
      .Set("evaluation text", hashes.evaluation)
      .Set("file of a pass", hashes.passes)
      .Set("recipe", recipe.json);
  return run;
}

Result<CompressSummary> RunInJournal(const Recipe& recipe, const Checkpoint& source,
                                     const InputHashes& hashes, const RunJournal& journal,
                                     uint64_t header_bytes, const CompressOptions& options,
                                     Progress* progress) {
  PassState state(source);
  EW_TRY(RunPasses(
      {journal.folder(), options.shared_folder}, options.measure,
      {recipe, "", options.threads, false, false, hashes.model, header_bytes, progress}, &state));
  const std::string result = journal.folder() + "/result.gguf";
  const Metadata metadata = OutputMetadata(recipe, source.metadata(), hashes, state);
  EW_TRY(CopyTensors(state.model.path(), result, metadata, Declare(state), progress));
  CompressSummary summary = Summarize(recipe, state);
  EW_TRY(summary.bytes, GgufFileBytes(metadata, Declare(state)));
  EW_TRY(RenameFile(result, recipe.output));
  return summary;
}

// The summary of an output that is in place.
Result<CompressSummary> ReadResult(const Recipe& recipe, const Checkpoint& source) {
  PassState state(source);
  EW_TRY(TakeFile(recipe.output, &state));
  EW_TRY(state.card, FindCard(state.metadata).In(recipe.output));
  CompressSummary summary = Summarize(recipe, state);
  EW_TRY(summary.bytes, GgufFileBytes(state.metadata, Declare(state)));
  return summary;
}

// Adds to the cost of the passes what comes before and after them.
Result<Cost> FinishEstimate(const Recipe& recipe, std::vector<std::string> inputs, uint64_t bytes,
                            Cost passes) {
  for (const std::string* text : {&recipe.calibration.path, &recipe.evaluation.path}) {
    if (!text->empty()) inputs.push_back(*text);
  }
  EW_TRY(Cost ends, HashingCost(inputs));
  EW_TRY(const double rate, MeasureWriteRate(recipe.output));
  ends.seconds += static_cast<double>(bytes) / rate;
  ends.bytes += ReadMemoryUse().rss_bytes;
  return Then(passes, ends);
}

// A run without its work.
struct Plan {
  CompressSummary summary;
  uint64_t header_bytes = 0;  // PassContext
};

Result<Plan> PlanPasses(const Recipe& recipe, uint64_t header_bytes, int threads, bool estimate,
                        Progress* progress) {
  EW_TRY(const Checkpoint source, Checkpoint::Open(recipe.model));
  EW_TRY(const auto files, SourceFiles(source, recipe.tokenizer));
  PassState state(source);
  const InputHashes hashes = PlaceholderHashes(recipe, files);
  EW_TRY(RunPasses({JournalFolder(recipe.output), ""}, true,
                   {recipe, "", threads, true, estimate, hashes.model, header_bytes, progress},
                   &state));
  const Metadata metadata = OutputMetadata(recipe, source.metadata(), hashes, state);
  Plan plan{Summarize(recipe, state)};
  CompressSummary& summary = plan.summary;
  summary.card = Json();
  EW_TRY(const uint64_t bytes, GgufFileBytes(metadata, Declare(state)).In(recipe.output));
  EW_TRY(const uint64_t alignment, GgufAlignment(metadata));
  plan.header_bytes = bytes;
  for (const ConvertedTensor& tensor : state.tensors) {
    plan.header_bytes -= AlignUp(tensor.bytes, alignment);
  }
  summary.target_bytes = state.target_bytes;
  summary.bytes = bytes;
  if (state.target_bytes > 0) {
    summary.bytes = state.target_bytes;
    summary.tensor_bytes = state.target_bytes - std::min(state.target_bytes, plan.header_bytes);
    summary.bits_per_weight =
        8.0 * static_cast<double>(summary.tensor_bytes) / static_cast<double>(summary.parameters);
  }
  for (const ConvertedTensor& tensor : state.tensors) {
    if (tensor.layout != TensorLayout::kPacked) continue;
    // Rows that packing adds, in the largest format that may be chosen.
    const uint64_t rows = tensor.shape.rows(),
                   row = Info(DType::kQ8_0).RowBytes(tensor.shape.columns());
    plan.header_bytes += AlignUp((PaddedRows(rows) - rows) * row, alignment);
  }
  if (estimate) {
    EW_TRY(summary.estimate, FinishEstimate(recipe, files, summary.bytes, state.cost));
  }
  return plan;
}

// Plans once more where a pass needs to know the header first.
Result<Plan> PlanRun(const Recipe& recipe, int threads, bool estimate, Progress* progress) {
  EW_TRY(Plan plan, PlanPasses(recipe, 0, threads, false, progress));
  if (plan.summary.target_bytes == 0 && !estimate) return plan;
  return PlanPasses(recipe, plan.header_bytes, threads, estimate, progress);
}

}  // namespace

Result<CompressSummary> PlanCompression(const Recipe& recipe, int threads, bool estimate,
                                        Progress* progress) {
  NoProgress silent;
  if (progress == nullptr) progress = &silent;
  const double start = NowSeconds();
  EW_TRY(Plan plan, PlanRun(recipe, threads, estimate, progress));
  plan.summary.seconds = NowSeconds() - start;
  plan.summary.peak_rss_bytes = ReadMemoryUse().peak_rss_bytes;
  return std::move(plan.summary);
}

Result<CompressSummary> Compress(const Recipe& recipe, const CompressOptions& options,
                                 Progress* progress) {
  NoProgress silent;
  if (progress == nullptr) progress = &silent;
  const double start = NowSeconds();
  // Finds what cannot work before a journal exists.
  EW_TRY(const Plan plan, PlanRun(recipe, options.threads, false, progress));
  EW_TRY(const Checkpoint source, Checkpoint::Open(recipe.model));
  EW_TRY(const auto files, SourceFiles(source, recipe.tokenizer));
  EW_TRY(const InputHashes hashes, HashInputs(recipe, files, progress));
  Metadata provenance;
  SetProvenance(RecipeRecord(recipe, hashes), hashes.model, &provenance);
  const bool written = options.resume &&
                       (!options.overwrite || FileExists(JournalFolder(recipe.output))) &&
                       IsResult(recipe.output, provenance);
  EW_TRY(CheckOutput(recipe.model, recipe.output, options.overwrite || written));
  EW_TRY(RunJournal journal, RunJournal::Open(recipe.output, RunIdentity(recipe, hashes),
                                              {options.resume, options.overwrite}));
  auto summary =
      written ? ReadResult(recipe, source)
              : RunInJournal(recipe, source, hashes, journal, plan.header_bytes, options, progress);
  if (!summary) {
    journal.RemoveIfEmpty();
    return std::move(summary).error();
  }
  journal.Remove();
  summary->target_bytes = plan.summary.target_bytes;
  summary->resumed = journal.resumed() || written;
  summary->source_sha256 = hashes.model.digest;
  summary->seconds = NowSeconds() - start;
  summary->peak_rss_bytes = ReadMemoryUse().peak_rss_bytes;
  return summary;
}

Json ToJson(const CompressSummary& summary) {
  Json passes{JsonArray{}};
  for (const std::string& pass : summary.passes) passes.Append(pass);
  Json json;
  json.Set("output", summary.output)
      .Set("bytes", summary.bytes)
      .Set("target_bytes", summary.target_bytes)
      .Set("tensor_bytes", summary.tensor_bytes)
      .Set("parameters", summary.parameters)
      .Set("bits_per_weight", summary.bits_per_weight)
      .Set("passes", std::move(passes))
      .Set("resumed", summary.resumed)
      .Set("card", summary.card)
      .Set("source_sha256", summary.source_sha256)
      .Set("seconds", summary.seconds)
      .Set("peak_rss_bytes", summary.peak_rss_bytes);
  if (summary.estimate) SetEstimate(*summary.estimate, &json);
  return json;
}

}  // namespace edgewise
