// WordPiece as BERT has it: normalized words, each cut into the longest tokens from the left.
#include <utility>

#include "base/strings.h"
#include "text/tokenizer_kinds.h"
#include "text/trie.h"
#include "text/unicode.h"

namespace edgewise {
namespace {

constexpr size_t kMaxWordChars = 100;  // longer words are unknown
constexpr std::string_view kContinuation = "##";

// The blocks that BERT spaces out, as the Hugging Face library lists them (it starts Extension E at
// U+2B920).
bool IsChinese(uint32_t c) {
  return (c >= 0x4E00 && c <= 0x9FFF) || (c >= 0x3400 && c <= 0x4DBF) ||
         (c >= 0x20000 && c <= 0x2A6DF) || (c >= 0x2A700 && c <= 0x2B73F) ||
         (c >= 0x2B740 && c <= 0x2B81F) || (c >= 0x2B920 && c <= 0x2CEAF) ||
         (c >= 0xF900 && c <= 0xFAFF) || (c >= 0x2F800 && c <= 0x2FA1F);
}

bool IsBertPunctuation(uint32_t c, Category category) {
  return IsPunctuation(category) || (c < 0x80 && IsSymbol(category));
}

class WordPieceTokenizer final : public Tokenizer {
 public:
  explicit WordPieceTokenizer(Vocab vocab) : Tokenizer(std::move(vocab)) {}
  Status Build();

 protected:
  Status EncodeText(std::string_view text, bool first, std::vector<int32_t>* ids) const override;
  std::string DecodePiece(int32_t id) const override;

 private:
  void EncodeWord(const std::vector<uint32_t>& word, std::vector<int32_t>* ids) const;

  bool hash_form_ = false;  // "##x" continues a word; otherwise U+2581 begins one
  Trie begins_;             // tokens that begin a word, without their mark
  Trie continues_;
};

Status WordPieceTokenizer::Build() {
  if (!vocab().unk) {
    return MakeError(Code::kBadData, "a WordPiece vocabulary needs an unknown token");
  }
  for (int32_t id = 0; id < size() && !hash_form_; ++id) {
    const std::string_view text = vocab().tokens[id];
    hash_form_ =
        type(id) == TokenType::kNormal && text.size() > 2 && text.starts_with(kContinuation);
  }
  const std::string_view mark = hash_form_ ? kContinuation : kSpaceMarkUtf8;
  std::vector<std::pair<std::string_view, int32_t>> marked, plain;
  for (int32_t id = 0; id < size(); ++id) {
    if (type(id) != TokenType::kNormal) continue;
    const std::string_view text = vocab().tokens[id];
    if (text.size() > mark.size() && text.starts_with(mark)) {
      marked.emplace_back(text.substr(mark.size()), id);
    } else {
      plain.emplace_back(text, id);
    }
  }
  begins_ = Trie(hash_form_ ? std::move(plain) : std::move(marked));
  continues_ = Trie(hash_form_ ? std::move(marked) : std::move(plain));
  return Ok{};
}

void WordPieceTokenizer::EncodeWord(const std::vector<uint32_t>& word,
                                    std::vector<int32_t>* ids) const {
  const size_t before = ids->size();
  if (word.size() <= kMaxWordChars) {
    const std::string text = EncodeUtf8(word);
    size_t i = 0;
    while (i < text.size()) {
      const Trie::Match match =
          (i == 0 ? begins_ : continues_).Longest(std::string_view(text).substr(i));
      if (match.length == 0) break;
      ids->push_back(match.value);
      i += match.length;
    }
    if (i == text.size()) return;
  }
  ids->resize(before);
  ids->push_back(*vocab().unk);
}

Status WordPieceTokenizer::EncodeText(std::string_view text, bool,
                                      std::vector<int32_t>* ids) const {
  std::vector<uint32_t> chars = DecodeUtf8(text);
  if (vocab().strip_accents) chars = ToNfd(chars);
  std::vector<uint32_t> word;
  const auto flush = [&] {
    if (!word.empty()) EncodeWord(word, ids);
    word.clear();
  };
  for (const uint32_t c : chars) {
    const Category category = CategoryOf(c);
    if (c == '\t' || c == '\n' || c == '\r' || (IsWhiteSpace(c) && category != Category::kCc)) {
      flush();
      continue;
    }
    // Ill-formed bytes are dropped like U+FFFD.
    if (c == 0 || c == 0xFFFD || c >= kIllFormed || category == Category::kCc ||
        category == Category::kCf || category == Category::kCo) {
      continue;
    }
    if (vocab().strip_accents && category == Category::kMn) continue;
    const bool alone = IsChinese(c) || IsBertPunctuation(c, category);
    if (alone) flush();
    word.push_back(vocab().lowercase ? ToLower(c) : c);
    if (alone) flush();
  }
  flush();
  return Ok{};
}

std::string WordPieceTokenizer::DecodePiece(int32_t id) const {
  const std::string_view text = vocab().tokens[id];
  if (!hash_form_) return UnescapeSpaces(text);
  if (text.size() > 2 && text.starts_with(kContinuation)) return std::string(text.substr(2));
  std::string piece(1, ' ');
  piece += text;
  return piece;
}

}  // namespace

Result<std::unique_ptr<Tokenizer>> CreateWordPiece(Vocab vocab) {
  auto tokenizer = std::make_unique<WordPieceTokenizer>(std::move(vocab));
  EW_TRY(tokenizer->Build());
  return std::unique_ptr<Tokenizer>(std::move(tokenizer));
}

}  // namespace edgewise
