// The pass "prune" of recipes.
#pragma once

#include "pipeline/pass.h"

namespace edgewise {

inline constexpr uint64_t kMaxPruneSteps = 64;

inline constexpr RecipeKey kPruneKeys[] = {
    {"method", KeyType::kText,
     "magnitude, global-magnitude, random, wanda, ria, magnitude+dsnot, wanda+dsnot, sparsegpt, "
     "alps or mask; of structure flap, minitron, magnitude or random",
     true},
    {"sparsity", KeyType::kText, "share of the weights to set to zero (\"50%\"), or N:M (\"2:4\")"},
    {"mask", KeyType::kPath, "with method mask: a mask file, or a pruned model as one GGUF"},
    {"permute", KeyType::kFlag, "with N:M: order channels first so that more is kept"},
    {"steps", KeyType::kCount, "to the sparsity, each on the model pruned so far (default 1)",
     false, 1, kMaxPruneSteps},
    {"ffn", KeyType::kAmount, "neurons: share to remove (\"25%\"), or number to keep"},
    {"heads", KeyType::kAmount, "query heads: share to remove, or number to keep"},
    {"width", KeyType::kAmount, "channels: share to remove, or number to keep"},
    {"layers", KeyType::kAmount, "layers: share or number to remove"},
    {"keep_layers", KeyType::kText, "in place of layers those that stay, from 0: '0,2,4'"},
    {"multiple", KeyType::kCount, "of columns, to which shares are rounded", false, 1, 1u << 16},
    {"repair", KeyType::kFlag, "fit what reads the structure that is left (default true)"},
    {"owl", KeyType::kFlag, "with sparsity: layers with more outliers keep more (default false)"},
    {"seed", KeyType::kCount, "of method random (default 1)"},
};

Status CheckPrune(const Json& arguments, const Recipe& recipe, SectionUse* use);
Status RunPrune(const Json& arguments, const PassContext& context, PassState* state);

}  // namespace edgewise
