// Pre-tokenizers of byte-level BPE: the splitting regexes of the known models as hand-written
// scanners of linear time.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace edgewise {

// One per set of patterns; many names of tokenizer.ggml.pre share a set.
enum class PreTokenizer : uint8_t {
  kGpt2,           // 's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
  kLlama3,         // (?i:'s|...)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|
                   // ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+
  kQwen2,          // the same with \p{N} for \p{N}{1,3}
  kStarcoder,      // \p{N}, then kGpt2
  kFalcon,         // [\p{P}$+<=>^~|`]+, then kGpt2, then [0-9][0-9][0-9]
  kDeepseekCoder,  // [\r\n], \s?\p{L}+, \s?\p{P}+, [一-龥ࠀ-一가-퟿]+, \p{N}, one after the
                   // other
  kDefault,        // [\p{P}$+<=>^~|]+, kGpt2, \p{N}+, [0-9][0-9][0-9]
};

// Returns the patterns behind a name of tokenizer.ggml.pre; "" means "default". Errors:
// kUnsupported, listing the known names.
Result<PreTokenizer> FindPreTokenizer(std::string_view name);

// Returns the end offsets, in bytes, of the pieces that `text` (below 4 GiB) falls into. Each stage
// splits the pieces of the one before it: matches and the gaps between them. A byte of ill-formed
// UTF-8 counts as a symbol.
std::vector<uint32_t> PreTokenize(PreTokenizer kind, std::string_view text);

}  // namespace edgewise
