// Operations on Text that filters and methods share; each keeps the origin of every character.
#pragma once

#include <cstdint>
#include <functional>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "text/jinja/runtime.h"

namespace edgewise::jinja {

enum class Side : uint8_t { kLeft = 1, kRight = 2, kBoth = 3 };

// Takes away the characters of `chars` at the ends; white space when it is null.
Text Strip(const Text& text, Side side, const Text* chars);
Text Upper(const Text& text);
Text Lower(const Text& text);
// First character upper case, the others lower case.
Text Capitalize(const Text& text);
// Capitalizes what follows each character that `separates`.
Text Title(const Text& text, bool (*separates)(char32_t));
// Replaces the first `count` occurrences, all when negative. Errors: kOutOfMemory.
Result<Text> Replace(Runtime& runtime, const Text& text, const Text& from, const Text& to,
                     int64_t count);
// Splits at most `limit` times (negative: without limit), at white space when `separator` is null;
// `from_right` as rsplit.
Result<std::vector<Text>> SplitText(Runtime& runtime, const Text& text, const Text* separator,
                                    int64_t limit, bool from_right);
// Splits into lines without their ends.
std::vector<Text> SplitLines(const Text& text);
// Joins str() of the items.
Result<Text> JoinItems(Runtime& runtime, const std::vector<Value>& items, const Text& separator);
// Finds `part` at or after `from`; npos when absent. Linear time.
size_t FindText(std::string_view text, std::string_view part, size_t from);

}  // namespace edgewise::jinja
