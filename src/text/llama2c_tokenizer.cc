// Reader of llama2.c's tokenizer.bin: pieces and scores of a SentencePiece BPE model, written with
// plain spaces.
#include "base/bytes.h"
#include "base/strings.h"
#include "text/tokenizer_files.h"
#include "text/tokenizer_kinds.h"

namespace edgewise {
namespace {

constexpr int32_t kUnk = 0, kBos = 1, kEos = 2, kSpecials = 3;

// The exporter writes bos and eos as "\n<s>\n"; pieces have U+2581 for a space elsewhere.
std::string StoredText(int32_t id, std::string_view text) {
  if (id < kSpecials) return std::string(Trim(text));
  std::string out;
  for (const char c : text) {
    if (c == ' ') {
      out += kSpaceMarkUtf8;
    } else {
      out += c;
    }
  }
  return out;
}

Status ReadTokens(std::span<const std::byte> bytes, uint32_t vocab_size, Vocab* vocab) {
  ByteReader reader(bytes);
  EW_TRY(const uint32_t max_length, reader.Read<uint32_t>());
  EW_TRY(reader.CheckCount(vocab_size, 8));
  for (uint32_t i = 0; i < vocab_size; ++i) {
    EW_TRY(const float score, reader.Read<float>());
    EW_TRY(const uint32_t length, reader.Read<uint32_t>());
    if (length > max_length) {
      return MakeError(Code::kBadData,
                       "token %u has %u bytes, more than the maximum of %u that the file states", i,
                       length, max_length);
    }
    EW_TRY(const std::string_view text, reader.ReadText(length));
    const auto id = static_cast<int32_t>(i);
    TokenType type = TokenType::kNormal;
    if (id == kUnk) {
      type = TokenType::kUnknown;
    } else if (id < kSpecials) {
      type = TokenType::kControl;
    } else if (ParseByteToken(text)) {
      type = TokenType::kByte;
    }
    vocab->tokens.push_back(StoredText(id, text));
    vocab->scores.push_back(score);
    vocab->types.push_back(type);
  }
  if (reader.remaining() > 0) {
    return MakeError(Code::kBadData,
                     "%llu bytes follow the %u tokens: the vocabulary size is wrong",
                     static_cast<unsigned long long>(reader.remaining()), vocab_size);
  }
  return Ok{};
}

}  // namespace

Result<Vocab> ParseLlama2cTokenizer(std::span<const std::byte> bytes, uint32_t vocab_size) {
  if (vocab_size < kSpecials) {
    return MakeError(Code::kBadData,
                     "llama2.c tokenizer: a vocabulary of %u tokens lacks unk, bos and eos",
                     vocab_size);
  }
  Vocab vocab;
  vocab.kind = TokenizerKind::kSpm;
  if (auto status = ReadTokens(bytes, vocab_size, &vocab); !status) {
    return std::move(status).error().In("llama2.c tokenizer");
  }
  vocab.unk = kUnk;
  vocab.bos = kBos;
  vocab.eos = kEos;
  vocab.add_bos = true;
  vocab.eog = FindEndOfGeneration(vocab);
  return vocab;
}

}  // namespace edgewise
