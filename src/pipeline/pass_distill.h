// The passes "distill", "finetune" and "scales" of recipes: what pruning cost, or what quantizing
// will cost, learned again from the recipe's model; data that the model has not seen; and what
// quantizing cost, learned again by the scales of its blocks.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>

#include "pipeline/pass.h"

namespace edgewise {

// The keys of all.
inline constexpr std::array kRunKeys = {
    RecipeKey{"data", KeyType::kPath, "what is learned from: text, or rows of JSON", true},
    RecipeKey{"held_out", KeyType::kPath,
              "what is measured on (default: the last fiftieth of data)"},
    RecipeKey{"steps", KeyType::kCount, "in all", false, 1, 1u << 30},
    RecipeKey{"epochs", KeyType::kNumber, "in place of steps: passes over the data (default 1)"},
    RecipeKey{"learning_rate", KeyType::kNumber,
              "of AdamW, at its peak (default 0.001, in finetune 0.0001)"},
    RecipeKey{"schedule", KeyType::kText, "cosine (default), wsd or constant"},
    RecipeKey{"final", KeyType::kNumber, "share of it that is left at the end (default 0.1)"},
    RecipeKey{"warmup", KeyType::kNumber, "share of the steps in which it rises (default 0.05)"},
    RecipeKey{"batch_tokens", KeyType::kCount, "tokens of a batch (default 4096)", false, 2,
              1u << 24},
    RecipeKey{"sequence", KeyType::kCount, "tokens of a sequence at most (default 256)", false, 2,
              1u << 20},
    RecipeKey{"recompute", KeyType::kFlag,
              "keep one layer's activations, compute the others twice"},
    RecipeKey{"precision", KeyType::kText, "of the factors of products: bf16 (default) or f32"},
    RecipeKey{"moments", KeyType::kText, "format of AdamW's two means: f32 (default) or 8bit"},
    RecipeKey{"seed", KeyType::kCount, "of the order of documents (default 1)"},
};
// Those of passes that learn weights.
inline constexpr std::array kWeightKeys = {
    RecipeKey{"weight_decay", KeyType::kNumber, "of matrices (default 0.1)"},
    RecipeKey{"lora_rank", KeyType::kCount, "learn adapters of this rank, merged at the end (LoRA)",
              false, 1, 65536},
    RecipeKey{"lora_alpha", KeyType::kNumber,
              "what they add is scaled by this / rank (default 16)"},
    RecipeKey{"lora_dropout", KeyType::kNumber, "share of their inputs (default 0)"},
    RecipeKey{"lora_targets", KeyType::kTexts,
              "matrices that have one: q, k, v, o, gate, up, down (default all)"},
    RecipeKey{"qat", KeyType::kText,
              "train through a quantizer, and write this mixture: q3_k_m, q4_0, ..."},
    RecipeKey{"learn_scales", KeyType::kFlag,
              "with qat: learn the scales of blocks beside the weights (LSQ)"},
};
// Those of passes with a teacher.
inline constexpr std::array kTeacherKeys = {
    RecipeKey{"alpha", KeyType::kNumber, "share of the teacher in the loss (default 1)"},
    RecipeKey{"temperature", KeyType::kNumber, "of both distributions (default 1)"},
    RecipeKey{"cache", KeyType::kPath,
              "of `edgewise distill cache`, in place of the recipe's model"},
    RecipeKey{"teacher_engine", KeyType::kText,
              "what runs the recipe's model: floats (default) or runtime, as it is stored"},
    RecipeKey{"divergence", KeyType::kText,
              "kl (default), reverse-kl, jsd, skew-kl, skew-reverse-kl"},
};
// Those of distill alone.
inline constexpr std::array kStudentKeys = {
    RecipeKey{"match_hidden", KeyType::kNumber,
              "weight of hidden states that differ from the teacher's (default 0)"},
    RecipeKey{"match_attention", KeyType::kNumber,
              "weight of attention relations that differ from the teacher's (default 0)"},
    RecipeKey{"on_policy", KeyType::kNumber,
              "share of sequences whose end the student writes (GKD, default 0)"},
    RecipeKey{"on_policy_tokens", KeyType::kCount, "tokens it writes of each at most (default 64)",
              false, 1, 1u << 20},
    RecipeKey{"layerwise", KeyType::kFlag,
              "layer by layer, from the outputs of the model's layers, with one in memory; steps "
              "and epochs are those of each layer"},
};

template <size_t kFirst, size_t kSecond>
constexpr std::array<RecipeKey, kFirst + kSecond> Join(
    const std::array<RecipeKey, kFirst>& first, const std::array<RecipeKey, kSecond>& second) {
  std::array<RecipeKey, kFirst + kSecond> all = {};
  std::copy(second.begin(), second.end(), std::copy(first.begin(), first.end(), all.begin()));
  return all;
}
inline constexpr auto kFinetuneKeys = Join(kRunKeys, kWeightKeys);
inline constexpr auto kScalesKeys = Join(kRunKeys, kTeacherKeys);
inline constexpr auto kDistillKeys = Join(kFinetuneKeys, Join(kTeacherKeys, kStudentKeys));

// A quantized model with `qat`.
ModelStage TrainingGives(const Json& arguments);
Status CheckDistill(const Json& arguments, const Recipe& recipe, SectionUse* use);
Status RunDistill(const Json& arguments, const PassContext& context, PassState* state);
Status CheckFinetune(const Json& arguments, const Recipe& recipe, SectionUse* use);
Status RunFinetune(const Json& arguments, const PassContext& context, PassState* state);
Status CheckScales(const Json& arguments, const Recipe& recipe, SectionUse* use);
Status RunScales(const Json& arguments, const PassContext& context, PassState* state);

}  // namespace edgewise
