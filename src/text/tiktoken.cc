// Reader of Llama 3's tokenizer.model: token bytes with their ranks, from which the merges of BPE
// follow.
#include <algorithm>
#include <string>
#include <unordered_map>
#include <utility>

#include "base/strings.h"
#include "text/base64.h"
#include "text/byte_letters.h"
#include "text/tokenizer_files.h"

namespace edgewise {
namespace {

constexpr size_t kMaxTokenBytes = 256;  // bounds the work per token; the longest known has 128
constexpr int kSpecialCount = 256;

using Ranks = std::unordered_map<std::string_view, uint32_t>;

std::string InLetters(std::string_view bytes) {
  std::string letters;
  for (const char c : bytes) AppendByteLetter(static_cast<uint8_t>(c), &letters);
  return letters;
}

Result<std::vector<std::string>> ReadTokens(std::string_view text) {
  std::vector<std::string> tokens;
  const std::vector<std::string_view> lines = Split(text, "\n");
  for (size_t i = 0; i < lines.size(); ++i) {
    const std::string_view line = Trim(lines[i]);
    if (line.empty()) continue;
    const auto fail = [i](const std::string& what) {
      return MakeError(Code::kBadData, "line %zu: %s", i + 1, what.c_str());
    };
    const size_t space = line.find(' ');
    if (space == std::string_view::npos) return fail("expected base64, a space and a rank");
    auto bytes = DecodeBase64(line.substr(0, space));
    if (!bytes) return fail(bytes.error().message);
    auto rank = ParseInt(line.substr(space + 1));
    if (!rank) return fail(rank.error().message);
    if (*rank != static_cast<int64_t>(tokens.size())) {
      return fail(Format("rank %lld follows %zu tokens; ranks must count up from 0",
                         static_cast<long long>(*rank), tokens.size()));
    }
    if (bytes->empty() || bytes->size() > kMaxTokenBytes) {
      return fail(
          Format("a token of %zu bytes; 1 to %zu are accepted", bytes->size(), kMaxTokenBytes));
    }
    tokens.push_back(*std::move(bytes));
  }
  if (tokens.empty()) return MakeError(Code::kBadData, "the file holds no tokens");
  return tokens;
}

// Merges the bytes of `token`, the pair of the lowest rank first, until two parts are left; returns
// where the second begins, or 0 when nothing merges before. Some parts rank higher than the token.
size_t FindSplit(const Ranks& ranks, std::string_view token) {
  std::vector<size_t> starts(token.size() + 1);  // of the parts, and the end
  for (size_t i = 0; i < starts.size(); ++i) starts[i] = i;
  const auto pair_rank = [&](size_t i) {
    const auto found = ranks.find(token.substr(starts[i], starts[i + 2] - starts[i]));
    return found == ranks.end() ? UINT32_MAX : found->second;
  };
  std::vector<uint32_t> pairs;  // the rank of parts i and i + 1 together
  for (size_t i = 0; i + 2 < starts.size(); ++i) pairs.push_back(pair_rank(i));
  while (pairs.size() > 1) {
    const auto best =
        static_cast<size_t>(std::min_element(pairs.begin(), pairs.end()) - pairs.begin());
    if (pairs[best] == UINT32_MAX) return 0;
    starts.erase(starts.begin() + static_cast<ptrdiff_t>(best) + 1);
    pairs.erase(pairs.begin() + static_cast<ptrdiff_t>(best));
    if (best > 0) pairs[best - 1] = pair_rank(best - 1);
    if (best < pairs.size()) pairs[best] = pair_rank(best);
  }
  return starts[1];
}

// The 256 special tokens that follow the ranks, as in Llama 3.1 (which named some that Llama 3
// reserved).
std::vector<std::string> SpecialTokens() {
  std::vector<std::string> tokens = {"<|begin_of_text|>",
                                     "<|end_of_text|>",
                                     "<|reserved_special_token_0|>",
                                     "<|reserved_special_token_1|>",
                                     "<|finetune_right_pad_id|>",
                                     "<|reserved_special_token_2|>",
                                     "<|start_header_id|>",
                                     "<|end_header_id|>",
                                     "<|eom_id|>",
                                     "<|eot_id|>",
                                     "<|python_tag|>"};
  for (int i = 3; tokens.size() < kSpecialCount; ++i) {
    tokens.push_back(Format("<|reserved_special_token_%d|>", i));
  }
  return tokens;
}

}  // namespace

Result<Vocab> ParseTiktokenRanks(std::string_view text) {
  auto tokens = ReadTokens(text);
  if (!tokens) return std::move(tokens).error().In("tiktoken ranks");
  Ranks ranks;
  ranks.reserve(tokens->size());
  for (size_t i = 0; i < tokens->size(); ++i) {
    if (!ranks.emplace((*tokens)[i], static_cast<uint32_t>(i)).second) {
      return MakeError(Code::kBadData, "tiktoken ranks: the token of rank %zu is there twice", i);
    }
  }
  Vocab vocab;
  vocab.kind = TokenizerKind::kBpe;
  vocab.pre = "llama-bpe";
  vocab.add_space_prefix = false;
  vocab.ignore_merges = true;
  for (size_t i = 0; i < tokens->size(); ++i) {
    const std::string_view token = (*tokens)[i];
    vocab.tokens.push_back(InLetters(token));
    if (token.size() < 2) continue;
    // A token that its parts never lead to is still found whole, as ignore_merges says.
    const size_t split = FindSplit(ranks, token);
    if (split == 0) continue;
    const std::string_view left = token.substr(0, split), right = token.substr(split);
    if (!ranks.contains(left) || !ranks.contains(right)) {
      return MakeError(Code::kBadData,
                       "tiktoken ranks: a byte of the token of rank %zu has no token", i);
    }
    vocab.merges.push_back(InLetters(left) + " " + InLetters(right));
  }
  vocab.types.assign(vocab.tokens.size(), TokenType::kNormal);
  const auto first_special = static_cast<int32_t>(vocab.tokens.size());
  for (std::string& special : SpecialTokens()) {
    vocab.tokens.push_back(std::move(special));
    vocab.types.push_back(TokenType::kControl);
  }
  vocab.bos = first_special;
  vocab.eos = first_special + 1;
  vocab.add_bos = true;
  vocab.eog = FindEndOfGeneration(vocab);
  return vocab;
}

}  // namespace edgewise
