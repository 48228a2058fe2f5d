// What stands between the documents of a plain text, as GPT-2's training data and TinyStories have
// it.
#pragma once

#include <string_view>

namespace edgewise {

inline constexpr std::string_view kDocumentSeparator = "<|endoftext|>";

}  // namespace edgewise
