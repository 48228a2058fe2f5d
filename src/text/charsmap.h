// The precompiled normalization table of SentencePiece: a double-array trie of prefixes and their
// replacements.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace edgewise {

// offset  size  field
// 0       4     bytes of the trie, u32
// 4       ...   units of the trie (darts-clone), u32 each
// ...     ...   replacements, each ended by NUL; a trie value is an offset into them
// Immutable, so thread-safe.
class CharsMap {
 public:
  // No table: nothing matches.
  CharsMap() = default;
  // Errors: kBadData.
  static Result<CharsMap> Parse(std::string_view bytes);

  // Returns the length of the longest prefix of `text` that has a replacement, and sets it; 0 when
  // there is none.
  size_t Match(std::string_view text, std::string_view* replacement) const;

 private:
  std::vector<uint32_t> units_;
  std::string replacements_;
};

}  // namespace edgewise
