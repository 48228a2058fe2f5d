// Windows: how a text becomes scored positions. Perplexity and KL share it, so their conventions
// are the same.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "kernels/kernels.h"
#include "text/document_separator.h"
#include "text/tokenizer.h"

namespace edgewise {

// Figures of different conventions must never be compared.
enum class TextConvention : uint8_t {
  // "A", Hugging Face style: the text tokenized whole (BOS once, at its start, where the vocabulary
  // asks for it), disjoint
  // windows of `context` tokens, every position of a window scored from the second on.
  kWhole,
  // "C", llama.cpp's llama-perplexity: as A, but the first token of each window is replaced by BOS
  // (where the vocabulary asks
  // for it) and only the predictions made at positions context/2 .. context-2 count.
  kLlamaCpp,
  // "documents": the text split at `separator`, each piece trimmed and encoded for itself with BOS
  // (where the vocabulary
  // asks for it), its first `context` tokens scored from the second on.
  kDocuments,
};

struct TextOptions {
  kernels::KvFormat kv_format = kernels::KvFormat::kF16;  // of the model, not of its base
  TextConvention convention = TextConvention::kLlamaCpp;
  uint64_t max_bytes =
      0;  // only the first bytes of the text (cut back to a whole character); 0: all of it
  uint32_t context =
      0;  // tokens; 0: 2048 (A), 512 (C), the trained context (documents), at most the trained one
  uint32_t max_windows = 0;  // only the first windows or documents; 0: all
  // kDocuments only. A piece of at most `skip_bytes` bytes is left out, and so is the last one when
  // max_bytes cut the text.
  std::string separator{kDocumentSeparator};
  uint64_t skip_bytes = 50;
};

// Tokens to run from an empty cache. The targets tokens[first_target ..] are scored: token t by the
// logits after t - 1.
struct ScoredWindow {
  std::vector<int32_t> tokens;
  uint32_t first_target = 1;  // >= 1
  uint32_t targets() const { return static_cast<uint32_t>(tokens.size()) - first_target; }
};

struct ScoredText {
  std::vector<ScoredWindow> windows;
  std::string convention;   // "A", "C" or "documents"
  uint32_t context = 0;     // tokens of a whole window
  uint64_t text_bytes = 0;  // used, after max_bytes
  uint64_t tokens = 0;      // scored targets
  uint64_t unused_tokens =
      0;  // that belong to no window (the tail) or lie beyond a document's context
  uint64_t skipped_documents = 0;
};

// Cuts `text` into windows. Errors: kInvalidArgument (a context below 2 or above `trained_context`;
// a text too short for one window, with the counts; an empty separator), those of Encode.
Result<ScoredText> CutText(const Tokenizer& tokenizer, uint32_t trained_context,
                           std::string_view text, const TextOptions& options);

// Returns the ids of a text that begins here: BOS where the vocabulary asks for it, never EOS.
// Errors: those of Encode.
Result<std::vector<int32_t>> EncodeFromStart(const Tokenizer& tokenizer, std::string_view text);

// "A", "C", "documents" and back. Errors: kInvalidArgument, listing the names.
const char* ConventionName(TextConvention convention);
Result<TextConvention> ParseConvention(std::string_view name);

}  // namespace edgewise
