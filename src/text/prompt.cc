#include "text/prompt.h"

#include <algorithm>
#include <array>
#include <iterator>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

namespace edgewise {
namespace {

std::string TokenText(const Vocab& vocab, std::optional<int32_t> id) {
  return id ? vocab.tokens[static_cast<size_t>(*id)] : std::string();
}

struct JoinedText {
  std::string text;
  std::vector<bool> trusted;  // per byte

  explicit JoinedText(std::span<const PromptPart> parts) {
    for (const PromptPart& part : parts) {
      text += part.text;
      trusted.resize(text.size(), part.trusted);
    }
  }
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

}  // namespace

// Where in the joined text control tokens are written, and by whom.
class PromptEncoder::ControlTokens {
 public:
  explicit ControlTokens(const Vocab& vocab) : vocab_(vocab) {
    std::copy_if(vocab.eog.begin(), vocab.eog.end(), std::back_inserter(user_defined_ends_),
                 [&](int32_t id) {
                   return vocab.types[static_cast<size_t>(id)] == TokenType::kUserDefined;
                 });
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

  // Returns the longest token that trusted text alone spells at `position`; negative: none.
  int32_t TrustedAt(const JoinedText& joined, size_t position) const {
    int32_t found = -1;
    AnyAt(joined.text, position, [&](int32_t id) {
      if (joined.AllTrusted(position, text(id).size())) found = id;
      return found >= 0;
    });
    return found;
  }

  // The same of the user-defined tokens that end a generation, as Gemma's in some files.
  int32_t UserDefinedEndAt(const JoinedText& joined, size_t position) const {
    for (const int32_t id : user_defined_ends_) {
      const std::string& end = text(id);
      if (std::string_view(joined.text).substr(position).starts_with(end) &&
          joined.AllTrusted(position, end.size())) {
        return id;
      }
    }
    return -1;
  }

  bool IsForgedIn(const JoinedText& joined) const {
    for (size_t i = 0; i < joined.text.size(); ++i) {
      if (AnyAt(joined.text, i,
                [&](int32_t id) { return !joined.AllTrusted(i, text(id).size()); })) {
        return true;
      }
    }
    return false;
  }

  // Splits at the control tokens that the template wrote; everything between is plain text.
  Status EncodePieces(const Tokenizer& tokenizer, const JoinedText& joined, bool continues,
                      std::vector<int32_t>* ids) const;

 private:
  const Vocab& vocab_;
  std::array<std::vector<int32_t>, 256> by_first_byte_;
  std::vector<int32_t> user_defined_ends_;
};

Status PromptEncoder::ControlTokens::EncodePieces(const Tokenizer& tokenizer,
                                                  const JoinedText& joined, bool continues,
                                                  std::vector<int32_t>* ids) const {
  const std::string_view whole = joined.text;
  size_t begin = 0;
  const auto flush = [&](size_t end) -> Status {
    if (begin == end) return Ok{};
    EW_TRY(const std::vector<int32_t> plain,
           tokenizer.Encode(whole.substr(begin, end - begin),
                            {.add_special = false, .continues = continues && begin == 0}));
    ids->insert(ids->end(), plain.begin(), plain.end());
    return Ok{};
  };
  for (size_t i = 0; i < whole.size();) {
    const int32_t found = TrustedAt(joined, i);
    if (found < 0) {
      ++i;
      continue;
    }
    size_t end = i;
    if (Contains(vocab_.lstrip, found)) {
      while (end > begin && IsBlank(whole[end - 1])) --end;
    }
    EW_TRY(flush(end));
    ids->push_back(found);
    i += text(found).size();
    if (Contains(vocab_.rstrip, found)) {
      while (i < whole.size() && IsBlank(whole[i])) ++i;
    }
    begin = i;
  }
  return flush(whole.size());
}

PromptEncoder::PromptEncoder(const Tokenizer& tokenizer)
    : tokenizer_(&tokenizer), controls_(std::make_unique<const ControlTokens>(tokenizer.vocab())) {}
PromptEncoder::PromptEncoder(PromptEncoder&&) noexcept = default;
PromptEncoder& PromptEncoder::operator=(PromptEncoder&&) noexcept = default;
PromptEncoder::~PromptEncoder() = default;

Status PromptEncoder::Append(std::span<const PromptPart> parts, std::vector<int32_t>* ids) const {
  const Vocab& vocab = tokenizer_->vocab();
  const JoinedText joined(parts);
  // As in one text, what follows a special token starts anew.
  const auto is_special = [&](int32_t id) {
    const TokenType type = vocab.types[static_cast<size_t>(id)];
    return type == TokenType::kControl || type == TokenType::kUserDefined;
  };
  const bool begins = ids->empty(), continues = !begins && !is_special(ids->back());
  std::vector<int32_t> added;
  if (controls_->IsForgedIn(joined)) {
    EW_TRY(controls_->EncodePieces(*tokenizer_, joined, continues, &added));
  } else {
    EW_TRY(added,
           tokenizer_->Encode(
               joined.text, {.add_special = false, .parse_special = true, .continues = continues}));
  }
  if (begins && vocab.add_bos && vocab.bos && (added.empty() || added[0] != *vocab.bos)) {
    ids->push_back(*vocab.bos);
  }
  ids->insert(ids->end(), added.begin(), added.end());
  return Ok{};
}

size_t PromptEncoder::FindEndOfGeneration(std::span<const PromptPart> parts) const {
  const JoinedText joined(parts);
  for (size_t i = 0; i < joined.text.size();) {
    int32_t found = controls_->TrustedAt(joined, i);
    if (found < 0) found = controls_->UserDefinedEndAt(joined, i);
    i += found < 0 ? 1 : controls_->text(found).size();
    if (found >= 0 && tokenizer_->IsEndOfGeneration(found)) return i;
  }
  return std::string::npos;
}

Result<std::vector<int32_t>> EncodePrompt(const Tokenizer& tokenizer,
                                          std::span<const PromptPart> parts) {
  std::vector<int32_t> ids;
  EW_TRY(PromptEncoder(tokenizer).Append(parts, &ids));
  return ids;
}

Json ChatContext(const Vocab& vocab, const Json& messages, bool add_generation_prompt) {
  Json context;
  context.Set("messages", messages).Set("add_generation_prompt", add_generation_prompt);
  context.Set("bos_token", TokenText(vocab, vocab.bos));
  context.Set("eos_token", TokenText(vocab, vocab.eos));
  return context;
}

}  // namespace edgewise
