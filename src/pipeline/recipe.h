// Recipes: how a model is compressed, as a YAML file (docs/recipes.md).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "base/result.h"
#include "eval/windows.h"
#include "pipeline/calibration_text.h"

namespace edgewise {

struct Pass;

enum class KeyType : uint8_t {
  kText,
  kPath,
  kCount,
  kNumber,
  kFlag,
  kTexts,
  kAmount,
  kSection,
  kList
};

// A key that a recipe, one of its sections or a pass takes.
struct RecipeKey {
  const char* name;
  KeyType type;
  const char* summary;
  bool required = false;
  uint64_t min = 0, max = uint64_t{1} << 40;  // of a kCount
};

struct EvaluationText {
  std::string path;  // empty: none
  TextOptions windows;
  std::optional<TextConvention> convention;  // else documents where separators stand, or C
};

struct RecipeStep {
  const Pass* pass = nullptr;  // a row of pass.h
  Json arguments;              // an object with keys that the pass takes; paths start at the root
  unsigned leaves = 0;         // the ModelStage that the model has after it
};

struct Recipe {
  std::string path;  // of the file, for messages
  std::string model, output, tokenizer;
  CalibrationText calibration;  // path empty: none
  EvaluationText evaluation;
  std::vector<RecipeStep> passes;
  std::vector<std::string> pass_files;  // that passes read
  // What decides the output, for its metadata: the keys of the file but `output`; of paths only
  // the names.
  Json json;
};

// Reads and checks everything that can be checked without the model. Relative paths start at the
// recipe's folder. Errors: kNotFound, kIo; kBadData (the file's line and column: no YAML, an
// unknown key, a value of another type or out of range, passes that do not fit together).
Result<Recipe> ReadRecipe(const std::string& path);
// The same for a text that would stand at `path`; opens no file.
Result<Recipe> ParseRecipe(std::string_view text, const std::string& path);
// The recipe that `json` tells of (Recipe::json), with relative paths from `folder` and without an
// output. `where` begins messages.
Result<Recipe> RecipeFromJson(const Json& json, const std::string& folder,
                              const std::string& where);

// A commented recipe for `model` that works as it is once its texts are there.
std::string RecipeTemplate(const std::string& model);

}  // namespace edgewise
