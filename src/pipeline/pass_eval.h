// The pass "eval" of recipes: the quality card, and of a pruned model also what the dense one in
// as many bytes would be.
#pragma once

#include "pipeline/pass.h"

namespace edgewise {

inline constexpr RecipeKey kEvalKeys[] = {
    {"dense", KeyType::kFlag,
     "of a pruned model also the dense one, by gptq in as many bytes (default true)"},
};

Status CheckEval(const Json& arguments, const Recipe& recipe, SectionUse* use);
Status RunEval(const Json& arguments, const PassContext& context, PassState* state);

}  // namespace edgewise
