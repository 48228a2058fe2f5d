// Fuzzes the readers of training files in every format: whatever the bytes, the answer is documents
// of known tokens and bad rows in order, the same each time, or an error.
#include "train/dataset.h"

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <string>
#include <string_view>

namespace {

using namespace edgewise;

// Bytes and the control tokens of ChatML.
std::unique_ptr<Tokenizer> MakeTokenizer() {
  Vocab vocab;
  const auto add = [&](std::string token, TokenType type) {
    vocab.tokens.push_back(std::move(token));
    vocab.types.push_back(type);
    vocab.scores.push_back(0);
  };
  add("<unk>", TokenType::kUnknown);
  for (const char* control : {"<s>", "</s>", "<|im_start|>", "<|im_end|>"}) {
    add(control, TokenType::kControl);
  }
  for (int byte = 0; byte < 256; ++byte) {
    constexpr char kDigits[] = "0123456789ABCDEF";
    add(std::string("<0x") + kDigits[byte / 16] + kDigits[byte % 16] + '>', TokenType::kByte);
  }
  vocab.unk = 0, vocab.bos = 1, vocab.eos = 2, vocab.eog = {2, 4};
  vocab.add_bos = true;
  auto tokenizer = Tokenizer::Create(std::move(vocab));
  if (!tokenizer) std::abort();
  return *std::move(tokenizer);
}

void CheckDataset(const train::Dataset& dataset, const Tokenizer& tokenizer, size_t size) {
  if (dataset.corpus.size() == 0 || dataset.corpus.size() > size) std::abort();
  for (size_t i = 0; i < dataset.corpus.size(); ++i) {
    bool learns = false;
    for (const uint8_t learned : dataset.corpus.learned(i)) learns = learns || learned == 1;
    if (!learns || dataset.corpus.tokens(i)[0] != *tokenizer.vocab().bos) std::abort();
    for (const int32_t token : dataset.corpus.tokens(i)) {
      if (token < 0 || token >= tokenizer.size()) std::abort();
    }
  }
  uint64_t line = 1;
  for (const train::BadRow& row : dataset.bad_rows) {
    if (row.line < line || row.problem.empty()) std::abort();
    line = row.line;
  }
  if (dataset.bad_rows.size() > dataset.bad_row_count) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const std::unique_ptr<Tokenizer> tokenizer = MakeTokenizer();
  constexpr std::string_view kTemplate =
      "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' "
      "}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  for (const std::string_view chat_template : {std::string_view(), kTemplate}) {
    train::DatasetOptions options;
    const auto dataset = train::ParseDataset(text, *tokenizer, chat_template, options);
    if (dataset) {
      CheckDataset(*dataset, *tokenizer, size);
    } else if (dataset.error().message.empty()) {
      std::abort();
    }
    options.strict = true;
    const auto strict = train::ParseDataset(text, *tokenizer, chat_template, options);
    if (strict.has_value() != (dataset && dataset->bad_row_count == 0)) std::abort();
    options.format = train::DatasetFormat::kText;
    const auto plain = train::ParseDataset(text, *tokenizer, chat_template, options);
    if (plain) CheckDataset(*plain, *tokenizer, size);
  }
  return 0;
}
