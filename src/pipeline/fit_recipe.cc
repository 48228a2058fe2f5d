#include "pipeline/fit_recipe.h"

#include <algorithm>
#include <filesystem>
#include <system_error>
#include <utility>

namespace edgewise {

std::string Absolute(const std::string& path) {
  return path.empty() ? path : std::filesystem::absolute(path).lexically_normal().string();
}

std::string NameOf(const std::string& path) {
  return std::filesystem::path(path).filename().string();
}

Json FitRecipe(const FitCandidate& candidate, const FitRecipePaths& paths) {
  Json json;
  json.Set("model", paths.model);
  if (!paths.tokenizer.empty()) json.Set("tokenizer", paths.tokenizer);
  if (candidate.calibrated) json.Set("calibration", Json().Set("text", paths.calibration));
  json.Set("evaluation", Json().Set("text", paths.evaluation));
  Json passes = candidate.passes;
  // The search compares what is pruned with dense candidates itself.
  const auto prunes = [](const Json& pass) { return pass.Find("prune") != nullptr; };
  if (std::ranges::any_of(*passes.AsArray(), prunes)) {
    passes.Append(Json().Set("eval", Json().Set("dense", false)));
  } else {
    passes.Append("eval");
  }
  return json.Set("passes", std::move(passes));
}

// JSON is YAML.
std::string ChosenRecipeText(const FitCandidate& candidate, const FitOutputs& outputs,
                             const std::string& model, const std::string& tokenizer) {
  // Folders as they are behind links; names as they were given, for they go into the output.
  const auto real = [](const std::string& path) {
    std::error_code ignored;
    const std::filesystem::path whole = Absolute(path);
    return std::filesystem::weakly_canonical(whole.parent_path(), ignored) / whole.filename();
  };
  const std::filesystem::path folder = real(outputs.recipe).parent_path();
  const auto from_there = [&](const std::string& path) {
    return path.empty() ? path : real(path).lexically_proximate(folder).string();
  };
  const Json json = FitRecipe(candidate, {from_there(model), from_there(tokenizer),
                                          NameOf(outputs.calibration), NameOf(outputs.evaluation)});
  std::string text = "# Chosen by `edgewise fit`: " + candidate.name + ".\n";
  text += "output: " + Json(NameOf(outputs.model)).Dump() + "\n";
  for (const auto& [key, value] : *json.AsObject()) {
    if (key != "passes") text += key + ": " + value.Dump() + "\n";
  }
  text += "passes:\n";
  for (const Json& pass : *json.Find("passes")->AsArray()) text += "  - " + pass.Dump() + "\n";
  return text;
}

}  // namespace edgewise
