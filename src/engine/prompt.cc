#include "engine/prompt.h"

#include <algorithm>
#include <array>
#include <string>
#include <string_view>

namespace edgewise {
namespace {

// Where in the joined text control tokens are written, and by whom.
class ControlTokens {
 public:
  explicit ControlTokens(const Vocab& vocab) : vocab_(vocab) {
    for (size_t i = 0; i < vocab.tokens.size(); ++i) {
      const bool parsed =
          vocab.types[i] == TokenType::kControl || vocab.types[i] == TokenType::kUnknown;
      if (!parsed || vocab.tokens[i].empty()) continue;
      by_first_byte_[static_cast<uint8_t>(vocab.tokens[i][0])].push_back(static_cast<int32_t>(i));
    }
    for (std::vector<int32_t>& ids : by_first_byte_) {
      std::sort(ids.begin(), ids.end(), [&](int32_t a, int32_t b) {
        return text(a).size() != text(b).size() ? text(a).size() > text(b).size() : a < b;
      });
    }
  }

  const std::string& text(int32_t id) const { return vocab_.tokens[static_cast<size_t>(id)]; }

  // Calls visit(id) for the tokens written at `position`, longest first, until it returns true;
  // says whether it did.
  template <class Visit>
  bool AnyAt(std::string_view text_, size_t position, Visit visit) const {
    for (const int32_t id : by_first_byte_[static_cast<uint8_t>(text_[position])]) {
      if (text_.substr(position, text(id).size()) == text(id) && visit(id)) return true;
    }
    return false;
  }

 private:
  const Vocab& vocab_;
  std::array<std::vector<int32_t>, 256> by_first_byte_;
};

struct JoinedText {
  std::string text;
  std::vector<bool> trusted;  // per byte

  bool AllTrusted(size_t begin, size_t size) const {
    return std::all_of(trusted.begin() + static_cast<ptrdiff_t>(begin),
                       trusted.begin() + static_cast<ptrdiff_t>(begin + size),
                       [](bool t) { return t; });
  }
};

bool IsBlank(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

bool Contains(const std::vector<int32_t>& ids, int32_t id) {
  return std::find(ids.begin(), ids.end(), id) != ids.end();
}

// Splits at the control tokens that the template wrote; everything between is plain text.
Status EncodePieces(const Tokenizer& tokenizer, const ControlTokens& controls,
                    const JoinedText& joined, std::vector<int32_t>* ids) {
  const std::string_view text = joined.text;
  size_t begin = 0;
  const auto flush = [&](size_t end) -> Status {
    if (begin == end) return Ok{};
    EW_TRY(const std::vector<int32_t> plain,
           tokenizer.Encode(text.substr(begin, end - begin), {.add_special = false}));
    ids->insert(ids->end(), plain.begin(), plain.end());
    return Ok{};
  };
  for (size_t i = 0; i < text.size();) {
    int32_t found = -1;
    controls.AnyAt(text, i, [&](int32_t id) {
      if (!joined.AllTrusted(i, controls.text(id).size())) return false;
      found = id;
      return true;
    });
    if (found < 0) {
      ++i;
      continue;
    }
    size_t end = i;
    if (Contains(tokenizer.vocab().lstrip, found)) {
      while (end > begin && IsBlank(text[end - 1])) --end;
    }
    EW_TRY(flush(end));
    ids->push_back(found);
    i += controls.text(found).size();
    if (Contains(tokenizer.vocab().rstrip, found)) {
      while (i < text.size() && IsBlank(text[i])) ++i;
    }
    begin = i;
  }
  return flush(text.size());
}

}  // namespace

Result<std::vector<int32_t>> EncodePrompt(const Tokenizer& tokenizer,
                                          std::span<const PromptPart> parts) {
  JoinedText joined;
  for (const PromptPart& part : parts) {
    joined.text += part.text;
    joined.trusted.resize(joined.text.size(), part.trusted);
  }
  const ControlTokens controls(tokenizer.vocab());
  bool forged = false;
  for (size_t i = 0; i < joined.text.size() && !forged; ++i) {
    forged = controls.AnyAt(joined.text, i, [&](int32_t id) {
      return !joined.AllTrusted(i, controls.text(id).size());
    });
  }
  std::vector<int32_t> ids;
  if (forged) {
    EW_TRY(EncodePieces(tokenizer, controls, joined, &ids));
  } else {
    EW_TRY(ids, tokenizer.Encode(joined.text, {.add_special = false, .parse_special = true}));
  }
  const Vocab& vocab = tokenizer.vocab();
  if (vocab.add_bos && vocab.bos && (ids.empty() || ids[0] != *vocab.bos)) {
    ids.insert(ids.begin(), *vocab.bos);
  }
  return ids;
}

}  // namespace edgewise
