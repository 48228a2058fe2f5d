// The constructors behind Tokenizer::Create, one per TokenizerKind. Each takes a vocabulary whose
// sizes and ids are checked.
#pragma once

#include <memory>

#include "base/result.h"
#include "text/tokenizer.h"

namespace edgewise {

Result<std::unique_ptr<Tokenizer>> CreateSpm(Vocab vocab);
Result<std::unique_ptr<Tokenizer>> CreateBpe(Vocab vocab);
Result<std::unique_ptr<Tokenizer>> CreateWordPiece(Vocab vocab);
Result<std::unique_ptr<Tokenizer>> CreateUnigram(Vocab vocab);

// U+2581, which stands for a space in the vocabularies of SentencePiece.
inline constexpr char32_t kSpaceMark = 0x2581;
inline constexpr std::string_view kSpaceMarkUtf8 = "\xE2\x96\x81";

// Returns `text` with every U+2581 as a space.
std::string UnescapeSpaces(std::string_view text);
// Returns the byte that "<0x0A>" names, or nothing.
std::optional<uint8_t> ParseByteToken(std::string_view text);

}  // namespace edgewise
