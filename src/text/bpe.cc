// Byte-level BPE: pre-tokens are merged from bytes by the rank of the merge (GPT-2, Llama 3, Qwen2
// ...).
#include <array>
#include <utility>

#include "base/strings.h"
#include "text/byte_letters.h"
#include "text/merge.h"
#include "text/pretokenize.h"
#include "text/tokenizer_kinds.h"
#include "text/unicode.h"

namespace edgewise {
namespace {

class BpeTokenizer final : public Tokenizer {
 public:
  BpeTokenizer(Vocab vocab, PreTokenizer pre)
      : Tokenizer(std::move(vocab)), pre_(pre), ignore_merges_(this->vocab().ignore_merges) {}
  Status Build();

 protected:
  Status EncodeText(std::string_view text, bool first, std::vector<int32_t>* ids) const override;
  std::string DecodePiece(int32_t id) const override;

 private:
  PreTokenizer pre_;
  bool ignore_merges_;
  std::array<int32_t, 256> byte_symbols_;  // a byte without a token has a symbol above all ids
  PairTable pairs_;
};

Status BpeTokenizer::Build() {
  for (int byte = 0; byte < 256; ++byte) {
    std::string letter;
    AppendByteLetter(static_cast<uint8_t>(byte), &letter);
    // DeepSeek has letters of bytes that UTF-8 never uses as user-defined tokens; those mean the
    // letter itself.
    const auto id = Find(letter);
    byte_symbols_[byte] = id && type(*id) == TokenType::kNormal ? *id : size() + byte;
  }
  const auto find = [this](std::string_view part, size_t number) -> Result<int32_t> {
    if (const auto id = Find(part)) return *id;
    return MakeError(Code::kBadData, "merge %zu needs %s, which is no token", number,
                     Quote(part).c_str());
  };
  const std::vector<std::string>& merges = vocab().merges;
  for (size_t i = 0; i < merges.size(); ++i) {
    const std::string_view merge = merges[i];
    const size_t space = merge.find(' ', 1);
    if (space == std::string_view::npos || space + 1 == merge.size()) {
      return MakeError(Code::kBadData, "merge %zu is %s, not two parts with a space between them",
                       i, Quote(merge).c_str());
    }
    const std::string_view left = merge.substr(0, space), right = merge.substr(space + 1);
    EW_TRY(const int32_t left_id, find(left, i));
    EW_TRY(const int32_t right_id, find(right, i));
    EW_TRY(const int32_t merged, find(std::string(left) + std::string(right), i));
    if (!pairs_.Insert(left_id, right_id, {static_cast<uint32_t>(i), merged})) {
      return MakeError(Code::kBadData, "merge %zu, %s, is there twice", i, Quote(merge).c_str());
    }
  }
  return Ok{};
}

Status BpeTokenizer::EncodeText(std::string_view text, bool, std::vector<int32_t>* ids) const {
  std::string composed;
  if (vocab().nfc) {
    composed = ToNfc(text);
    text = composed;
  }
  PairMerger merger(pairs_);
  std::vector<int32_t> word;
  std::string letters;
  uint32_t begin = 0;
  for (const uint32_t end : PreTokenize(pre_, text)) {
    const std::string_view piece = text.substr(begin, end - begin);
    begin = end;
    if (ignore_merges_) {
      letters.clear();
      for (const char c : piece) AppendByteLetter(static_cast<uint8_t>(c), &letters);
      if (const auto whole = Find(letters); whole && type(*whole) == TokenType::kNormal) {
        ids->push_back(*whole);
        continue;
      }
    }
    word.clear();
    for (const char c : piece) word.push_back(byte_symbols_[static_cast<uint8_t>(c)]);
    merger.Merge(&word);
    for (const int32_t symbol : word) {
      if (symbol < size()) {
        ids->push_back(symbol);
      } else {
        EW_TRY(AppendUnknown(std::string(1, static_cast<char>(symbol - size())), ids));
      }
    }
  }
  return Ok{};
}

std::string BpeTokenizer::DecodePiece(int32_t id) const {
  const std::string& text = vocab().tokens[id];
  std::string bytes;
  for (size_t i = 0; i < text.size();) {
    const auto byte = ByteOfLetter(NextChar(text, &i));
    if (!byte) return text;  // not written in byte letters: added later, as plain text
    bytes.push_back(static_cast<char>(*byte));
  }
  return bytes;
}

}  // namespace

Result<std::unique_ptr<Tokenizer>> CreateBpe(Vocab vocab) {
  EW_TRY(const PreTokenizer pre, FindPreTokenizer(vocab.pre));
  auto tokenizer = std::make_unique<BpeTokenizer>(std::move(vocab), pre);
  EW_TRY(tokenizer->Build());
  return std::unique_ptr<Tokenizer>(std::move(tokenizer));
}

}  // namespace edgewise
