// The quality card: what compression cost, measured on the tensors of the file that carries it, in
// the metadata key edgewise.card as JSON.
#pragma once

#include <string>

#include "base/json.h"
#include "base/progress.h"
#include "base/result.h"
#include "formats/metadata.h"
#include "pipeline/recipe.h"

namespace edgewise {

inline constexpr const char* kCardKey = "edgewise.card";

struct CardRequest {
  std::string base_path, model_path;  // a model and its compressed self
  std::string tokenizer_path;         // of the base, as in EngineOptions
  const EvaluationText* text = nullptr;
  double bits_per_weight = 0;
  int threads = 0;  // 0: all CPUs
};

// A text with how it is cut into windows.
struct EvaluationInput {
  std::string text;
  TextOptions windows;
};
// Errors: those of ReadFile.
Result<EvaluationInput> ReadEvaluation(const EvaluationText& source);

// Measures the card: KL divergence, top-1 agreement and perplexity against the base; the text's
// name and SHA-256; the kernels, since other ones round activations elsewhere. No times: the same
// model on the same kernels gives the same card. Errors: those of ReadFile, Engine::Load and
// MeasureKl.
Result<Json> MeasureCard(const CardRequest& request, Progress* progress);

// Adds the member "dense" of a pruned model's card: the bytes of the dense model that it is
// compared with, and from its card what it cost; 0 bytes where there can be none.
void SetDenseCard(const Json& dense, uint64_t bytes, Json* card);

// A card with the same names and the widest numbers, to know the size before measuring; with
// `dense` that of a pruned model.
Json PlaceholderCard(const EvaluationText& text, bool dense);

// Writes `card` so that it takes as many bytes as the placeholder of `text`, with "dense" where the
// card has that.
void SetCard(const Json& card, const EvaluationText& text, Metadata* metadata);

// The card in `metadata`; null where there is none. Errors: kBadData (no JSON object).
Result<Json> FindCard(const Metadata& metadata);

// A few lines for people. Members that a card lacks are left out.
std::string CardText(const Json& card);

}  // namespace edgewise
