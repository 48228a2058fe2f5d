// SentencePiece Unigram: the segmentation of the highest total score, found by dynamic programming
// (Viterbi).
#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "base/strings.h"
#include "text/charsmap.h"
#include "text/tokenizer_kinds.h"
#include "text/trie.h"
#include "text/unicode.h"

namespace edgewise {
namespace {

constexpr double kUnknownPenalty = 10.0;  // below the worst token
constexpr size_t kMaxNormalizedBytes = 1u << 30;

class UnigramTokenizer final : public Tokenizer {
 public:
  explicit UnigramTokenizer(Vocab vocab) : Tokenizer(std::move(vocab)) {}
  Status Build();

 protected:
  Status EncodeText(std::string_view text, bool first, std::vector<int32_t>* ids) const override;
  std::string DecodePiece(int32_t id) const override { return UnescapeSpaces(vocab().tokens[id]); }

 private:
  // The best way to reach a place in the text: its last token (-1: unknown) and where that begins.
  struct Best {
    double score = -std::numeric_limits<double>::infinity();
    uint32_t begin = 0;
    int32_t id = -1;
  };
  class Matches;
  Result<std::string> Normalize(std::string_view text, bool first) const;
  std::vector<Best> Search(std::string_view text) const;

  CharsMap charsmap_;
  Trie tokens_;
  double unknown_score_ = 0;
};

Status UnigramTokenizer::Build() {
  if (!vocab().precompiled_charsmap.empty()) {
    EW_TRY(charsmap_, CharsMap::Parse(vocab().precompiled_charsmap));
  }
  std::vector<std::pair<std::string_view, int32_t>> entries;
  double worst = 0;
  for (int32_t id = 0; id < size(); ++id) {
    if (type(id) != TokenType::kNormal && type(id) != TokenType::kUnused) continue;
    if (!std::isfinite(vocab().scores[id])) {
      return MakeError(Code::kBadData, "the score of token %d is infinite", id);
    }
    entries.emplace_back(vocab().tokens[id], id);
    if (type(id) == TokenType::kNormal) worst = std::min<double>(worst, vocab().scores[id]);
  }
  tokens_ = Trie(std::move(entries));
  unknown_score_ = worst - kUnknownPenalty;
  return Ok{};
}

// Applies the table, puts U+2581 for spaces and before the text, and merges spaces where the
// vocabulary asks for it.
Result<std::string> UnigramTokenizer::Normalize(std::string_view text, bool first) const {
  const bool merge = vocab().remove_extra_whitespaces;
  const bool prefix = first && vocab().add_space_prefix;
  std::string out;
  out.reserve(text.size() + text.size() / 2);
  if (prefix && !merge) out += kSpaceMarkUtf8;
  bool pending = prefix;  // with `merge`: a space is due before the next other character
  bool any = false;
  const auto put = [&](std::string_view part) {
    for (const char c : part) {
      if (c != ' ') {
        if (merge && pending) out += kSpaceMarkUtf8;
        pending = false;
        any = true;
        out += c;
      } else if (!merge) {
        out += kSpaceMarkUtf8;
      } else {
        pending = prefix || any;
      }
    }
  };
  for (size_t i = 0; i < text.size();) {
    std::string_view replacement;
    if (const size_t length = charsmap_.Match(text.substr(i), &replacement); length > 0) {
      put(replacement);
      i += length;
    } else {
      const size_t begin = i;
      const uint32_t c = NextChar(text, &i);
      put(c >= kIllFormed ? std::string_view("\xEF\xBF\xBD") : text.substr(begin, i - begin));
    }
    if (out.size() > kMaxNormalizedBytes) {
      return MakeError(Code::kInvalidArgument,
                       "the normalized text is larger than 1 GiB; encode it in parts");
    }
  }
  return out;
}

// Finds all tokens that `text` starts with. A text that repeats itself starts alike at many places,
// so what the last walk over the trie found stays as long as the bytes it saw are the same.
class UnigramTokenizer::Matches {
 public:
  struct Match {
    size_t length;
    int32_t id;
  };
  explicit Matches(const Trie& tokens) : tokens_(tokens) {}
  const std::vector<Match>& At(std::string_view text) {
    if (!seen_.empty() && text.substr(0, seen_.size()) == seen_) return found_;
    found_.clear();
    uint32_t node = Trie::kRoot;
    size_t k = 0;
    while (k < text.size()) {
      node = tokens_.Child(node, static_cast<uint8_t>(text[k]));
      ++k;
      if (node == Trie::kRoot) break;
      const int32_t id = tokens_.Value(node);
      if (id != Trie::kNone) found_.push_back({k, id});
    }
    // A walk that ran into the end of the text would have gone on elsewhere.
    seen_ = node == Trie::kRoot ? text.substr(0, k) : std::string_view();
    return found_;
  }

 private:
  const Trie& tokens_;
  std::string_view seen_;
  std::vector<Match> found_;  // by length
};

std::vector<UnigramTokenizer::Best> UnigramTokenizer::Search(std::string_view text) const {
  std::vector<Best> best(text.size() + 1);
  best[0].score = 0;
  Matches matches(tokens_);
  for (size_t i = 0; i < text.size();) {
    size_t next = i;
    NextChar(text, &next);
    const double so_far = best[i].score;
    bool has_char = false;  // a token for exactly this character
    for (const auto [length, id] : matches.At(text.substr(i))) {
      has_char |= i + length == next;
      const double score = so_far + vocab().scores[id];
      Best& end = best[i + length];
      if (score > end.score) end = {score, static_cast<uint32_t>(i), id};
    }
    if (!has_char && so_far + unknown_score_ > best[next].score) {
      best[next] = {so_far + unknown_score_, static_cast<uint32_t>(i), -1};
    }
    i = next;
  }
  return best;
}

Status UnigramTokenizer::EncodeText(std::string_view text, bool first,
                                    std::vector<int32_t>* ids) const {
  EW_TRY(const std::string normalized, Normalize(text, first));
  const std::vector<Best> best = Search(normalized);
  std::vector<uint32_t> ends;  // of the tokens, last first
  for (auto end = static_cast<uint32_t>(normalized.size()); end > 0; end = best[end].begin)
    ends.push_back(end);
  for (auto end = ends.rbegin(); end != ends.rend(); ++end) {
    const Best& token = best[*end];
    if (token.id >= 0) {
      ids->push_back(token.id);
    } else {
      EW_TRY(
          AppendUnknown(std::string_view(normalized).substr(token.begin, *end - token.begin), ids));
    }
  }
  return Ok{};
}

}  // namespace

Result<std::unique_ptr<Tokenizer>> CreateUnigram(Vocab vocab) {
  auto tokenizer = std::make_unique<UnigramTokenizer>(std::move(vocab));
  EW_TRY(tokenizer->Build());
  return std::unique_ptr<Tokenizer>(std::move(tokenizer));
}

}  // namespace edgewise
