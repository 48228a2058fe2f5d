#include "eval/words.h"

#include <algorithm>

#include "text/unicode.h"

namespace edgewise {
namespace {

uint64_t HashWord(std::string_view word) {
  uint64_t hash = 0xCBF29CE484222325ull;  // FNV-1a
  for (const char c : word) hash = (hash ^ static_cast<uint8_t>(c)) * 0x100000001B3ull;
  return MixBits(hash);
}

}  // namespace

std::vector<std::string> Words(std::string_view text) {
  std::vector<std::string> words;
  std::string word;
  const auto finish = [&] {
    if (!word.empty()) words.push_back(word);
    word.clear();
  };
  for (size_t at = 0; at < text.size();) {
    const uint32_t c = NextChar(text, &at);
    const Category category = CategoryOf(c);
    const bool joins = IsLetter(category) || IsMark(category) || IsNumber(category);
    if (!joins) finish();
    if (IsWhiteSpace(c)) continue;
    AppendChar(ToLower(c), &word);
    if (!joins) finish();
  }
  finish();
  return words;
}

std::vector<uint64_t> NgramHashes(std::span<const std::string> words, size_t n) {
  std::vector<uint64_t> single, hashes;
  for (const std::string& word : words) single.push_back(HashWord(word));
  if (single.empty()) return hashes;
  n = std::min(n, single.size());
  for (size_t begin = 0; begin + n <= single.size(); ++begin) {
    uint64_t hash = 0;
    for (size_t i = begin; i < begin + n; ++i) hash = MixBits(hash ^ single[i]);
    hashes.push_back(hash);
  }
  return hashes;
}

void SortUnique(std::vector<uint64_t>* values) {
  std::sort(values->begin(), values->end());
  values->erase(std::unique(values->begin(), values->end()), values->end());
}

}  // namespace edgewise
