#include "pipeline/reproduce.h"

#include <cstring>
#include <filesystem>
#include <utility>

#include "base/file.h"
#include "base/process.h"
#include "base/strings.h"
#include "formats/gguf.h"
#include "kernels/kernels.h"
#include "model/checkpoint.h"
#include "pipeline/compress.h"
#include "pipeline/output_path.h"
#include "pipeline/recipe.h"
#include "pipeline/run_journal.h"
#include "pipeline/source_hash.h"

namespace edgewise {
namespace {

constexpr size_t kMaxShown = 5;

// What the metadata of a compressed file tells of its making.
struct Origin {
  std::string version, kernels, model_sha256, calibration_sha256, evaluation_sha256,
      pass_files_sha256;
  Json recipe;
};

std::string Member(const Json& json, const char* key) {
  const Json* value = json.Find(key);
  return value && value->is_string() ? *value->AsString() : "";
}

Result<Origin> ReadOrigin(const GgufFile& file) {
  const Metadata& metadata = file.metadata();
  const auto text = metadata.GetString("edgewise.recipe");
  Result<Json> record = text ? ParseJson(*text) : Result<Json>(Json());
  if (!record || Member(*record, "command") != "compress" || !record->Find("recipe")) {
    return MakeError(Code::kInvalidArgument,
                     "was not written by `edgewise compress`, so there is no recipe to repeat");
  }
  Origin origin;
  EW_TRY(origin.version, metadata.GetString("edgewise.version"));
  EW_TRY(origin.model_sha256, metadata.GetString("edgewise.source.sha256"));
  origin.kernels = Member(*record, "kernels");
  origin.calibration_sha256 = Member(*record, "calibration_sha256");
  origin.evaluation_sha256 = Member(*record, "evaluation_sha256");
  origin.pass_files_sha256 = Member(*record, "pass_files_sha256");
  origin.recipe = *record->Find("recipe");
  return origin;
}

Status CheckProgram(const Origin& origin) {
  if (origin.version != EDGEWISE_VERSION) {
    return MakeError(Code::kInvalidArgument, "was made by edgewise %s; this is %s",
                     Quote(origin.version).c_str(), EDGEWISE_VERSION);
  }
  if (origin.kernels != kernels::Active().name) {
    return MakeError(Code::kInvalidArgument,
                     "was made with the kernels %s, and these are %s, which round elsewhere; set "
                     "EDGEWISE_ISA where this machine has both",
                     Quote(origin.kernels).c_str(), kernels::Active().name);
  }
  return Ok{};
}

// The recipe with the inputs found.
Result<Recipe> Locate(const std::string& path, const Origin& origin,
                      const ReproduceOptions& options) {
  const std::string folder = std::filesystem::path(path).parent_path().string();
  EW_TRY(Recipe recipe, RecipeFromJson(origin.recipe, folder, path + ": edgewise.recipe"));
  if (!options.recipe_path.empty()) {
    EW_TRY(const Recipe given, ReadRecipe(options.recipe_path));
    if (given.json.Find("passes")->Dump() != recipe.json.Find("passes")->Dump()) {
      return MakeError(Code::kInvalidArgument, "%s: its passes are not those that %s was made by",
                       options.recipe_path.c_str(), path.c_str());
    }
    recipe.passes = given.passes;
    recipe.pass_files = given.pass_files;
    recipe.model = given.model;
    recipe.tokenizer = given.tokenizer;
    recipe.calibration.path = given.calibration.path;
    recipe.evaluation.path = given.evaluation.path;
  }
  const auto replace = [](const std::string& from, std::string* to) {
    if (!from.empty()) *to = from;
  };
  replace(options.model, &recipe.model);
  replace(options.tokenizer, &recipe.tokenizer);
  replace(options.calibration, &recipe.calibration.path);
  replace(options.evaluation, &recipe.evaluation.path);
  return recipe;
}

Status CheckDigest(const std::string& path, const std::vector<std::string>& files,
                   const std::string& wanted, const Progress* progress) {
  EW_TRY(const SourceHash hash, HashFiles(files, [&] { return progress->Cancelled(); }));
  if (hash.digest == wanted) return Ok{};
  return MakeError(Code::kInvalidArgument,
                   "%s: is not the input it was made from: SHA-256 %s, not %s", path.c_str(),
                   hash.digest.c_str(), Quote(wanted).c_str());
}

Status CheckInputs(const Recipe& recipe, const Origin& origin, const Progress* progress) {
  EW_TRY(const Checkpoint model, Checkpoint::Open(recipe.model));
  EW_TRY(const auto files, SourceFiles(model, recipe.tokenizer));
  EW_TRY(CheckDigest(recipe.model, files, origin.model_sha256, progress));
  const std::pair<std::string, std::string> texts[] = {
      {recipe.calibration.path, origin.calibration_sha256},
      {recipe.evaluation.path, origin.evaluation_sha256}};
  for (const auto& [path, digest] : texts) {
    if (!path.empty()) EW_TRY(CheckDigest(path, {path}, digest, progress));
  }
  if (!recipe.pass_files.empty()) {
    EW_TRY(CheckDigest(recipe.pass_files.front(), recipe.pass_files, origin.pass_files_sha256,
                       progress));
  }
  return Ok{};
}

// Collects a few names and counts the rest.
class Differences {
 public:
  void Add(const char* kind, const std::string& name) {
    if (shown_.size() < kMaxShown) shown_.push_back(std::string(kind) + " " + Quote(name));
    ++count_;
  }
  std::vector<std::string> Take() && {
    if (count_ > shown_.size()) shown_.push_back(Format("%zu more", count_ - shown_.size()));
    return std::move(shown_);
  }

 private:
  std::vector<std::string> shown_;
  size_t count_ = 0;
};

std::span<const std::byte> BytesOf(const TensorView& view) {
  const auto bytes = TensorBytes(view.dtype, view.shape, view.layout);
  return {static_cast<const std::byte*>(view.data), bytes ? *bytes : 0};
}

bool SameTensor(const TensorView& a, const TensorView& b) {
  const auto x = BytesOf(a), y = BytesOf(b);
  return a.dtype == b.dtype && a.layout == b.layout && a.shape == b.shape && x.size() == y.size() &&
         std::memcmp(x.data(), y.data(), x.size()) == 0;
}

bool SameBytes(const GgufFile& a, const GgufFile& b) {
  const auto x = a.map()->bytes(), y = b.map()->bytes();
  return x.size() == y.size() && std::memcmp(x.data(), y.data(), x.size()) == 0;
}

std::vector<std::string> Compare(const GgufFile& old_file, const GgufFile& new_file) {
  std::vector<std::string> found;
  Differences keys, tensors;
  for (const auto& [key, value] : old_file.metadata().all()) {
    const MetaValue* other = new_file.metadata().Find(key);
    if (!other || *other != value) keys.Add("metadata key", key);
  }
  for (const auto& [key, value] : new_file.metadata().all()) {
    if (!old_file.metadata().Find(key)) keys.Add("metadata key", key);
  }
  for (const NamedTensor& tensor : old_file.tensors().all()) {
    const TensorView* other = new_file.tensors().Find(tensor.name);
    if (!other || !SameTensor(tensor.view, *other)) tensors.Add("tensor", tensor.name);
  }
  for (const NamedTensor& tensor : new_file.tensors().all()) {
    if (!old_file.tensors().Find(tensor.name)) tensors.Add("tensor", tensor.name);
  }
  for (std::string& line : std::move(tensors).Take()) found.push_back(std::move(line));
  for (std::string& line : std::move(keys).Take()) found.push_back(std::move(line));
  if (found.empty()) found.push_back("bytes outside of tensors and metadata values");
  return found;
}

}  // namespace

Result<ReproduceSummary> Reproduce(const std::string& path, const ReproduceOptions& options,
                                   Progress* progress) {
  NoProgress silent;
  if (progress == nullptr) progress = &silent;
  const double start = NowSeconds();
  EW_TRY(const GgufFile file, GgufFile::Open(path));
  EW_TRY(const Origin origin, ReadOrigin(file).In(path));
  EW_TRY(CheckProgram(origin).In(path));
  EW_TRY(Recipe recipe, Locate(path, origin, options));
  EW_TRY(CheckInputs(recipe, origin, progress).In(path));
  const bool keep = !options.output.empty();
  recipe.output = keep ? options.output : path + ".again";
  if (!FileExists(JournalFolder(recipe.output))) {
    EW_TRY(CheckOutput(path, recipe.output, options.overwrite));
  }
  CompressOptions compress;
  compress.threads = options.threads;
  compress.overwrite = options.overwrite;
  compress.resume = true;
  EW_TRY(Compress(recipe, compress, progress));
  EW_TRY(const GgufFile again, GgufFile::Open(recipe.output));
  ReproduceSummary summary;
  summary.equal = SameBytes(file, again);
  if (!summary.equal) summary.differences = Compare(file, again);
  std::error_code ignored;
  if (!keep) std::filesystem::remove(recipe.output, ignored);
  summary.seconds = NowSeconds() - start;
  return summary;
}

}  // namespace edgewise
