// The pass "distill" of recipes: what pruning cost, or what quantizing will cost, learned again
// from the recipe's model.
#pragma once

#include "pipeline/pass.h"

namespace edgewise {

inline constexpr RecipeKey kDistillKeys[] = {
    {"data", KeyType::kPath, "what is learned from: text, or rows of JSON", true},
    {"held_out", KeyType::kPath, "what is measured on (default: the last fiftieth of data)"},
    {"steps", KeyType::kCount, "in all", false, 1, 1u << 30},
    {"epochs", KeyType::kNumber, "in place of steps: passes over the data (default 1)"},
    {"learning_rate", KeyType::kNumber, "of AdamW, at its peak (default 0.001)"},
    {"schedule", KeyType::kText, "cosine (default), wsd or constant"},
    {"warmup", KeyType::kNumber, "share of the steps in which it rises (default 0.05)"},
    {"batch_tokens", KeyType::kCount, "tokens of a batch (default 4096)", false, 2, 1u << 24},
    {"sequence", KeyType::kCount, "tokens of a sequence at most (default 256)", false, 2, 1u << 20},
    {"alpha", KeyType::kNumber, "share of the teacher in the loss (default 1)"},
    {"temperature", KeyType::kNumber, "of both distributions (default 1)"},
    {"cache", KeyType::kPath, "of `edgewise distill cache`, in place of the recipe's model"},
    {"divergence", KeyType::kText, "kl (default), reverse-kl, jsd, skew-kl, skew-reverse-kl"},
    {"precision", KeyType::kText, "of the factors of products: bf16 (default) or f32"},
    {"qat", KeyType::kText, "train through a quantizer, and write this mixture: q3_k_m, q4_0, ..."},
    {"seed", KeyType::kCount, "of the order of documents (default 1)"},
};

// A quantized model with `qat`.
ModelStage DistillGives(const Json& arguments);
Status CheckDistill(const Json& arguments, const Recipe& recipe, SectionUse* use);
Status RunDistill(const Json& arguments, const PassContext& context, PassState* state);

}  // namespace edgewise
