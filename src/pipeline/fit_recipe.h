// The recipes of a search's candidates.
#pragma once

#include <string>

#include "base/json.h"
#include "pipeline/fit.h"

namespace edgewise {

// The paths in a recipe.
struct FitRecipePaths {
  std::string model, tokenizer, calibration, evaluation;
};

Json FitRecipe(const FitCandidate& candidate, const FitRecipePaths& paths);

// The recipe of the candidate that was chosen, as it stands in outputs.recipe: with paths from that
// folder on.
std::string ChosenRecipeText(const FitCandidate& candidate, const FitOutputs& outputs,
                             const std::string& model, const std::string& tokenizer);

std::string Absolute(const std::string& path);  // of an empty path: empty
std::string NameOf(const std::string& path);    // its last part

}  // namespace edgewise
