#include "pipeline/recipe.h"

#include <algorithm>
#include <filesystem>
#include <functional>
#include <span>
#include <utility>

#include "base/file.h"
#include "base/strings.h"
#include "base/yaml.h"
#include "pipeline/pass.h"

namespace edgewise {
namespace {

constexpr uint64_t kMaxTokens = uint64_t{1} << 40;
constexpr uint64_t kMaxContext = 1u << 20;

constexpr RecipeKey kRecipeKeys[] = {
    {"model", KeyType::kPath, "GGUF file, Hugging Face folder or llama2.c checkpoint", true},
    {"output", KeyType::kPath, "GGUF file to write", true},
    {"tokenizer", KeyType::kPath, "where the model does not bring one (llama2.c)"},
    {"calibration", KeyType::kSection, "text that shows what the layers see"},
    {"evaluation", KeyType::kSection, "held-out text to measure quality on"},
    {"passes", KeyType::kList, "what is done, in this order", true},
};
constexpr RecipeKey kCalibrationKeys[] = {
    {"text", KeyType::kPath, "text file", true},
    {"tokens", KeyType::kCount, "tokens of it to use; 0: all (default 65536)", false, 0,
     kMaxTokens},
    {"context", KeyType::kCount, "tokens of a sequence (default 512, or the trained context)",
     false, 2, kMaxContext},
};
constexpr RecipeKey kEvaluationKeys[] = {
    {"text", KeyType::kPath, "text file, not part of the calibration text", true},
    {"convention", KeyType::kText,
     "A, C or documents (default: documents where <|endoftext|> stands in the text, else C)"},
    {"context", KeyType::kCount, "tokens of a window", false, 2, kMaxContext},
    {"bytes", KeyType::kCount, "use only the first bytes", false, 1, uint64_t{1} << 30},
    {"windows", KeyType::kCount, "use only the first windows or documents", false, 1, 1u << 30},
};

// Reads the Json of a recipe; `locate` tells where a value of it stands, for messages.
class RecipeReader {
 public:
  using Locate = std::function<std::string(const Json& node)>;
  RecipeReader(std::string folder, bool with_output, Locate locate)
      : folder_(std::move(folder)), with_output_(with_output), locate_(std::move(locate)) {}
  Result<Recipe> Read(const Json& root);

 private:
  Error ErrorAt(const Json& node, const std::string& message) const {
    return MakeError(Code::kBadData, "%s: %s", locate_(node).c_str(), message.c_str());
  }
  // `at` is where a missing key would stand.
  Status CheckKeys(const JsonObject& object, const std::string& what,
                   std::span<const RecipeKey> keys, const Json& at) const;
  Status CheckValue(const Json& value, const RecipeKey& key) const;
  std::string Path(const Json* value) const;
  // What decides the output: all but its path, and of other paths only the names.
  Json WithoutFolders(const Json& object, std::span<const RecipeKey> keys) const;
  void ReadCalibration(const Json& section);
  Status ReadEvaluation(const Json& section);
  Status ReadPass(const Json& item);
  Status CheckUse(const Json& root) const;

  std::string folder_;
  bool with_output_;
  Locate locate_;
  Recipe recipe_;
  std::vector<Json> named_;  // the passes' arguments as Recipe::json has them
  SectionUse use_;
  unsigned stage_ = kFloatModel;
};

std::string KnownKeys(std::span<const RecipeKey> keys) {
  std::vector<std::string> names;
  for (const RecipeKey& key : keys) names.emplace_back(key.name);
  return names.empty() ? "it takes none" : "known are " + Join(names, ", ");
}

const char* TypeText(KeyType type) {
  constexpr const char* kTexts[] = {"a text",
                                    "a path",
                                    "a whole number",
                                    "a number",
                                    "true or false",
                                    "a list of texts",
                                    "a share or a whole number",
                                    "a map",
                                    "a list"};
  return kTexts[static_cast<size_t>(type)];
}

bool HasType(const Json& value, KeyType type) {
  switch (type) {
    case KeyType::kText:
    case KeyType::kPath:
      return value.is_string() && !value.AsString()->empty();
    case KeyType::kCount:
      return value.AsUint().has_value();
    case KeyType::kNumber:
      return value.is_number();
    case KeyType::kFlag:
      return value.is_bool();
    case KeyType::kAmount:
      return value.is_string() || value.AsUint().has_value();
    case KeyType::kSection:
      return value.is_object();
    case KeyType::kList:
      return value.is_array();
    case KeyType::kTexts:
      break;
  }
  const JsonArray* array = value.AsArray();
  return array && std::all_of(array->begin(), array->end(),
                              [](const Json& item) { return item.is_string(); });
}

Status RecipeReader::CheckValue(const Json& value, const RecipeKey& key) const {
  if (!HasType(value, key.type)) {
    return ErrorAt(value, Format("%s must be %s (%s)", key.name, TypeText(key.type), key.summary));
  }
  if (key.type != KeyType::kCount) return Ok{};
  const uint64_t count = *value.AsUint();
  if (count >= key.min && count <= key.max) return Ok{};
  return ErrorAt(value, Format("%s must be from %llu to %llu (%s)", key.name,
                               static_cast<unsigned long long>(key.min),
                               static_cast<unsigned long long>(key.max), key.summary));
}

Status RecipeReader::CheckKeys(const JsonObject& object, const std::string& what,
                               std::span<const RecipeKey> keys, const Json& at) const {
  for (const auto& [name, value] : object) {
    const auto key = std::find_if(keys.begin(), keys.end(),
                                  [&](const RecipeKey& row) { return name == row.name; });
    if (key == keys.end()) {
      return ErrorAt(value, Format("unknown key %s in %s; %s", Quote(name).c_str(), what.c_str(),
                                   KnownKeys(keys).c_str()));
    }
    EW_TRY(CheckValue(value, *key));
  }
  for (const RecipeKey& key : keys) {
    const bool there = std::any_of(object.begin(), object.end(),
                                   [&](const auto& member) { return member.first == key.name; });
    if (!key.required || there) continue;
    if (!with_output_ && key.name == std::string_view("output")) continue;
    return ErrorAt(at, Format("%s lacks the key %s (%s)", what.c_str(), key.name, key.summary));
  }
  return Ok{};
}

std::string RecipeReader::Path(const Json* value) const {
  if (!value) return "";
  const std::filesystem::path path(*value->AsString());
  return path.is_absolute() ? path.string() : (std::filesystem::path(folder_) / path).string();
}

// The last name of a path.
std::string NameOf(const Json& value) {
  std::filesystem::path path = std::filesystem::path(*value.AsString()).lexically_normal();
  if (!path.has_filename()) path = path.parent_path();
  return path.filename().string();
}

Json RecipeReader::WithoutFolders(const Json& object, std::span<const RecipeKey> keys) const {
  Json names{JsonObject{}};
  for (const RecipeKey& key : keys) {
    const Json* value = object.Find(key.name);
    if (!value || key.name == std::string_view("output")) continue;
    names.Set(key.name, key.type == KeyType::kPath ? Json(NameOf(*value)) : *value);
  }
  return names;
}

void RecipeReader::ReadCalibration(const Json& section) {
  CalibrationText& text = recipe_.calibration;
  text.path = Path(section.Find("text"));
  if (const Json* tokens = section.Find("tokens")) text.max_tokens = *tokens->AsUint();
  if (const Json* context = section.Find("context")) {
    text.context = static_cast<uint32_t>(*context->AsUint());
  }
}

Status RecipeReader::ReadEvaluation(const Json& section) {
  EvaluationText& text = recipe_.evaluation;
  text.path = Path(section.Find("text"));
  if (const Json* convention = section.Find("convention")) {
    auto parsed = ParseConvention(*convention->AsString());
    if (!parsed) return ErrorAt(*convention, parsed.error().message);
    text.convention = *parsed;
  }
  if (const Json* context = section.Find("context")) {
    text.windows.context = static_cast<uint32_t>(*context->AsUint());
  }
  if (const Json* bytes = section.Find("bytes")) text.windows.max_bytes = *bytes->AsUint();
  if (const Json* windows = section.Find("windows")) {
    text.windows.max_windows = static_cast<uint32_t>(*windows->AsUint());
  }
  return Ok{};
}

// A pass is its name, or a map of its name to its keys.
Status RecipeReader::ReadPass(const Json& item) {
  const JsonObject* object = item.AsObject();
  if (!item.is_string() && !(object && object->size() == 1)) {
    return ErrorAt(item, "a pass is a name, or a name with keys, as in `quantize: {to: q4_k_m}`");
  }
  const std::string& name = object ? object->front().first : *item.AsString();
  const Pass* pass = FindPass(name);
  if (!pass) {
    std::vector<std::string> names;
    for (const Pass& row : AllPasses()) names.emplace_back(row.name);
    return ErrorAt(item, Format("no pass is named %s; known are %s", Quote(name).c_str(),
                                Join(names, ", ").c_str()));
  }
  Json arguments{JsonObject{}};
  if (object && !object->front().second.is_null()) arguments = object->front().second;
  if (!arguments.is_object()) {
    return ErrorAt(item, Format("the keys of %s must be a map", pass->name));
  }
  // The members of the document itself, whose places are known.
  static const JsonObject kNone;
  const JsonObject* given = object ? object->front().second.AsObject() : nullptr;
  EW_TRY(CheckKeys(given ? *given : kNone, pass->name, pass->keys, item));
  for (const RecipeStep& step : recipe_.passes) {
    if (step.pass == pass && !pass->repeats) {
      return ErrorAt(item, Format("%s stands there twice", pass->name));
    }
  }
  if ((pass->takes & stage_) == 0) {
    return ErrorAt(item, Format("%s cannot follow here: %s", pass->name,
                                stage_ == kFloatModel       ? "nothing is quantized yet"
                                : stage_ == kQuantizedModel ? "the model is quantized already"
                                                            : "the model is packed already"));
  }
  Json named = arguments;  // of paths only the names
  for (const RecipeKey& key : pass->keys) {
    const Json* path = arguments.Find(key.name);
    if (path == nullptr || key.type != KeyType::kPath) continue;
    const std::string found = Path(path);
    named.Set(key.name, NameOf(*path));
    arguments.Set(key.name, found);
    recipe_.pass_files.push_back(found);
  }
  auto checked = pass->check(arguments, recipe_, &use_);
  if (!checked) return ErrorAt(item, std::string(pass->name) + ": " + checked.error().message);
  const unsigned stage = pass->gives != nullptr ? pass->gives(arguments) : 0;
  if (stage != 0) stage_ = stage;
  recipe_.passes.push_back({pass, std::move(arguments), stage_});
  named_.push_back(std::move(named));
  return Ok{};
}

Status RecipeReader::CheckUse(const Json& root) const {
  if (stage_ == kFloatModel) {
    return ErrorAt(*root.Find("passes"),
                   "no pass writes a file; quantize, or qat in distill, is missing");
  }
  if (!recipe_.calibration.path.empty() && !use_.calibration) {
    return ErrorAt(*root.Find("calibration"), "no pass reads the calibration text");
  }
  if (!recipe_.evaluation.path.empty() && !use_.evaluation) {
    return ErrorAt(*root.Find("evaluation"), "no pass reads the evaluation text; eval is missing");
  }
  return Ok{};
}

Result<Recipe> RecipeReader::Read(const Json& root) {
  if (!root.is_object()) return ErrorAt(root, "a recipe is a map; " + KnownKeys(kRecipeKeys));
  EW_TRY(CheckKeys(*root.AsObject(), "the recipe", kRecipeKeys, root));
  recipe_.json = WithoutFolders(root, kRecipeKeys);
  recipe_.model = Path(root.Find("model"));
  recipe_.output = Path(root.Find("output"));
  recipe_.tokenizer = Path(root.Find("tokenizer"));
  if (const Json* section = root.Find("calibration")) {
    EW_TRY(CheckKeys(*section->AsObject(), "calibration", kCalibrationKeys, *section));
    ReadCalibration(*section);
    recipe_.json.Set("calibration", WithoutFolders(*section, kCalibrationKeys));
  }
  if (const Json* section = root.Find("evaluation")) {
    EW_TRY(CheckKeys(*section->AsObject(), "evaluation", kEvaluationKeys, *section));
    EW_TRY(ReadEvaluation(*section));
    recipe_.json.Set("evaluation", WithoutFolders(*section, kEvaluationKeys));
  }
  for (const Json& item : *root.Find("passes")->AsArray()) EW_TRY(ReadPass(item));
  EW_TRY(CheckUse(root));
  Json passes{JsonArray{}};
  for (size_t i = 0; i < named_.size(); ++i) {
    const char* name = recipe_.passes[i].pass->name;
    if (named_[i].AsObject()->empty()) {
      passes.Append(name);
    } else {
      passes.Append(Json().Set(name, std::move(named_[i])));
    }
  }
  recipe_.json.Set("passes", std::move(passes));
  return std::move(recipe_);
}

}  // namespace

Result<Recipe> ParseRecipe(std::string_view text, const std::string& path) {
  EW_TRY(const YamlDocument document, ParseYaml(text).In(path));
  const auto locate = [&](const Json& node) {
    const YamlMark mark = document.MarkOf(node);
    return Format("%s: line %d, column %d", path.c_str(), mark.line, mark.column);
  };
  const std::string folder = std::filesystem::path(path).parent_path().string();
  EW_TRY(Recipe recipe, RecipeReader(folder, true, locate).Read(document.root()));
  recipe.path = path;
  return recipe;
}

Result<Recipe> ReadRecipe(const std::string& path) {
  EW_TRY(const std::string text, ReadFile(path, kMaxYamlBytes));
  return ParseRecipe(text, path);
}

Result<Recipe> RecipeFromJson(const Json& json, const std::string& folder,
                              const std::string& where) {
  return RecipeReader(folder, false, [&](const Json&) { return where; }).Read(json);
}

std::string RecipeTemplate(const std::string& model) {
  std::string text = "# How to compress a model: `edgewise compress` runs this file.\n";
  text += "# Paths are relative to this file. `edgewise recipe check` finds mistakes in it.\n";
  text += "model: " + Json(model).Dump() + "\n";
  text += "output: model-q4_k_m.gguf\n\n";
  text += "# Text like what the model will read, for the quantizer to learn what its layers see.\n";
  text += "calibration:\n  text: calibration.txt\n  tokens: 65536    # 0: all of it\n\n";
  text += "# Other text, which nothing has learned from, to measure what compression cost.\n";
  text += "evaluation:\n  text: held-out.txt\n\n# In this order; --dry-run tells the exact size.\n";
  text += "passes:\n";
  text += "  # - rotate       # spread outliers first: for models that quantize badly\n";
  text += "  # - calibrate    # sums of the text, once: faster, and needed by method imatrix;\n";
  text += "  #                # without it gptq runs layer by layer, which is a little better\n";
  text += "  - quantize:\n      to: q4_k_m     # any preset of `edgewise quantize --to`\n";
  text += "      method: gptq   # rtn and imatrix are quicker\n";
  text += "      # tensor_types: [\"ffn_down=q6_k\"]\n";
  text += "  - eval           # KL, top-1 and perplexity against the model, kept in the file\n";
  text += "  # - pack         # loads at once, in Edgewise only\n";
  return text;
}

}  // namespace edgewise
