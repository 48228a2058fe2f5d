// Words and hashed runs of words: how training examples are compared.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace edgewise {

// Returns the words of `text` in lower case: each run of letters, marks and numbers, and every
// other character but white space alone. So a character that nobody sees is a word too. Any bytes
// are accepted.
std::vector<std::string> Words(std::string_view text);

// Returns a hash of each run of `n` words, in their order; of all words where there are fewer;
// nothing for no words. The same on every machine.
std::vector<uint64_t> NgramHashes(std::span<const std::string> words, size_t n);

// A bijection of 64 bits that spreads any difference over all of them (splitmix64).
inline uint64_t MixBits(uint64_t z) {
  z += 0x9E3779B97F4A7C15ull;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
  return z ^ (z >> 31);
}

// Sorts `values` and leaves one of each.
void SortUnique(std::vector<uint64_t>* values);

}  // namespace edgewise
