// What the normalizer, pre-tokenizer and post-processor of a tokenizer.json mean for a Vocab.
// Combinations that no field of it can express are kUnsupported, by name.
#pragma once

#include "base/json.h"
#include "base/result.h"
#include "text/tokenizer.h"

namespace edgewise {

// True when the pre-tokenizer or the decoder writes bytes as letters.
bool IsByteLevel(const Json& root);
// Set pre and nfc.
Status ApplyByteLevelRules(const Json& root, Vocab* vocab);
// Sets add_space_prefix.
Status ApplySpmRules(const Json& root, Vocab* vocab);
// Set lowercase and strip_accents; pad and mask by their usual texts.
Status ApplyWordPieceRules(const Json& root, Vocab* vocab);
// Set precompiled_charsmap, add_space_prefix, remove_extra_whitespaces.
Status ApplyUnigramRules(const Json& root, Vocab* vocab);
// Sets bos, eos (cls, sep) and whether they are added.
Status ApplyPostProcessor(const Json& root, Vocab* vocab);

}  // namespace edgewise
