// SentencePiece BPE: characters are merged by the score of what they become, unknown characters
// fall back to bytes.
#include <algorithm>
#include <unordered_map>
#include <utility>

#include "base/strings.h"
#include "text/merge.h"
#include "text/tokenizer_kinds.h"
#include "text/unicode.h"

namespace edgewise {
namespace {

// A token longer than this would make the table of its splits costly to build; real ones have up to
// some hundred bytes.
constexpr size_t kMaxTokenBytes = 1024;

class SpmTokenizer final : public Tokenizer {
 public:
  explicit SpmTokenizer(Vocab vocab) : Tokenizer(std::move(vocab)) {}
  Status Build();

 protected:
  Status EncodeText(std::string_view text, bool first, std::vector<int32_t>* ids) const override;
  std::string DecodePiece(int32_t id) const override { return UnescapeSpaces(vocab().tokens[id]); }

 private:
  bool Mergeable(int32_t id) const {
    return type(id) == TokenType::kNormal || type(id) == TokenType::kUnused;
  }
  std::vector<uint32_t> RankScores() const;
  void AddSplits(int32_t id, uint32_t rank);
  // A character is the symbol of its token; one without a token has a symbol above all ids.
  int32_t CharSymbol(uint32_t c) const {
    if (c < char_ids_direct_.size() && char_ids_direct_[c] >= 0) return char_ids_direct_[c];
    const auto found = char_ids_.find(c);
    return found != char_ids_.end() ? found->second : size() + static_cast<int32_t>(c);
  }
  // The symbol of the whole string, or -1.
  int32_t Symbol(std::string_view text) const;

  std::unordered_map<uint32_t, int32_t> char_ids_;
  std::vector<int32_t> char_ids_direct_ = std::vector<int32_t>(128, -1);
  PairTable pairs_;
  bool split_at_spaces_ = true;
};

int32_t SpmTokenizer::Symbol(std::string_view text) const {
  size_t end = 0;
  const uint32_t c = NextChar(text, &end);
  if (end == text.size()) return CharSymbol(c);
  const auto id = Find(text);
  return id && Mergeable(*id) ? *id : -1;
}

// Returns for each token the place of its score among all scores, the best being 0.
std::vector<uint32_t> SpmTokenizer::RankScores() const {
  std::vector<float> scores = vocab().scores;
  std::sort(scores.begin(), scores.end(), std::greater<>());
  scores.erase(std::unique(scores.begin(), scores.end()), scores.end());
  std::vector<uint32_t> ranks(vocab().scores.size());
  for (size_t i = 0; i < ranks.size(); ++i) {
    ranks[i] = static_cast<uint32_t>(
        std::lower_bound(scores.begin(), scores.end(), vocab().scores[i], std::greater<>()) -
        scores.begin());
  }
  return ranks;
}

// Adds a rule for each way to make the token of two symbols.
void SpmTokenizer::AddSplits(int32_t id, uint32_t rank) {
  const std::string_view text = vocab().tokens[id];
  bool previous_is_mark = true;
  for (size_t i = 0; i < text.size();) {
    if (i > 0) {
      const int32_t left = Symbol(text.substr(0, i));
      const int32_t right = left < 0 ? -1 : Symbol(text.substr(i));
      if (right >= 0) pairs_.Insert(left, right, {rank, id});
    }
    const bool is_mark = NextChar(text, &i) == kSpaceMark;
    if (is_mark && !previous_is_mark) split_at_spaces_ = false;
    previous_is_mark = is_mark;
  }
}

Status SpmTokenizer::Build() {
  const Vocab& v = vocab();
  for (int32_t id = 0; id < size(); ++id) {
    const std::string& text = v.tokens[id];
    if (!Mergeable(id) || text.empty() || Find(text) != id) continue;
    if (text.size() > kMaxTokenBytes) {
      return MakeError(Code::kBadData, "token %d has %zu bytes; at most %zu are accepted", id,
                       text.size(), kMaxTokenBytes);
    }
    size_t end = 0;
    const uint32_t c = NextChar(text, &end);
    if (end != text.size()) continue;
    char_ids_[c] = id;
    if (c < char_ids_direct_.size()) char_ids_direct_[c] = id;
  }
  const std::vector<uint32_t> ranks = RankScores();
  for (int32_t id = 0; id < size(); ++id) {
    if (Mergeable(id) && !v.tokens[id].empty() && Find(v.tokens[id]) == id)
      AddSplits(id, ranks[id]);
  }
  return Ok{};
}

Status SpmTokenizer::EncodeText(std::string_view text, bool first,
                                std::vector<int32_t>* ids) const {
  PairMerger merger(pairs_);
  std::vector<int32_t> word;
  std::string character;
  const auto flush = [&]() -> Status {
    merger.Merge(&word);
    for (const int32_t symbol : word) {
      if (symbol < size()) {
        ids->push_back(symbol);
        continue;
      }
      character.clear();
      AppendChar(static_cast<uint32_t>(symbol - size()), &character);
      EW_TRY(AppendUnknown(character, ids));
    }
    word.clear();
    return Ok{};
  };

  const int32_t mark = CharSymbol(kSpaceMark);
  if (first && vocab().add_space_prefix) word.push_back(mark);
  bool after_mark = true;
  for (size_t i = 0; i < text.size();) {
    const uint32_t c = NextChar(text, &i);
    const bool is_mark = c == ' ' || c == kSpaceMark;
    // No token has a space after another character, so nothing merges across this place.
    if (is_mark && !after_mark && split_at_spaces_) EW_TRY(flush());
    word.push_back(is_mark ? mark : CharSymbol(c));
    after_mark = is_mark;
  }
  return flush();
}

}  // namespace

Result<std::unique_ptr<Tokenizer>> CreateSpm(Vocab vocab) {
  auto tokenizer = std::make_unique<SpmTokenizer>(std::move(vocab));
  EW_TRY(tokenizer->Build());
  return std::unique_ptr<Tokenizer>(std::move(tokenizer));
}

}  // namespace edgewise
