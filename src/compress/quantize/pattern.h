// Pattern: the small regular expressions that pick tensors by name. Linear time: a set of states
// walks the text once.
#pragma once

#include <bitset>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace edgewise {

// Literals, '.', '*', '+', '?', '|', '(...)', '[a-z]', '[^...]', '^', '$', '\d', '\w' and '\'
// before punctuation. Letters match in either case, since llama-quantize lowers the pattern too.
// Immutable, so thread-safe.
class Pattern {
 public:
  // Errors: kInvalidArgument (what is wrong and at which character; syntax outside the list above
  // is named).
  static Result<Pattern> Parse(std::string_view source);

  // True when some part of `text` matches.
  bool FoundIn(std::string_view text) const;

  enum class Op : uint8_t { kByte, kSplit, kJump, kTextBegin, kTextEnd, kMatch };
  // One step of the program. Targets are relative to the instruction itself.
  struct Instruction {
    Op op;
    int first = 0;           // kSplit, kJump
    int second = 0;          // kSplit
    std::bitset<256> bytes;  // kByte
  };

 private:
  std::vector<Instruction> program_;
};

}  // namespace edgewise
