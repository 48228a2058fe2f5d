// What the tests of training data share: a small vocabulary, a chat template, and documents made
// readable.
#pragma once

#include <doctest/doctest.h>

#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/file.h"
#include "tests/test_data.h"
#include "text/tokenizer_files.h"
#include "train/dataset.h"

namespace edgewise::train {

inline constexpr const char* kChatMl =
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' + "
    "'\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

using Ids = std::vector<int32_t>;

inline const std::vector<std::string> kChatTokens = {"<|im_start|>", "<|im_end|>"};

// The vocabulary of the model in this repository, with `controls` in place of its last tokens.
inline std::unique_ptr<Tokenizer> Stories(const std::vector<std::string>& controls = {}) {
  const auto bytes =
      ReadFile(SourcePath("models/edgewise-stories-3M/tokenizer.model"), uint64_t{1} << 24);
  REQUIRE(bytes);
  auto vocab = ParseSentencePieceModel(std::as_bytes(std::span(*bytes)));
  REQUIRE(vocab);
  vocab->add_bos = true;
  for (size_t i = 0; i < controls.size(); ++i) {
    const size_t id = vocab->tokens.size() - controls.size() + i;
    vocab->tokens[id] = controls[i];
    vocab->types[id] = TokenType::kControl;
  }
  vocab->eog = FindEndOfGeneration(*vocab);
  auto tokenizer = Tokenizer::Create(*std::move(vocab));
  REQUIRE(tokenizer);
  return *std::move(tokenizer);
}

inline Dataset Parsed(std::string_view content, const Tokenizer& tokenizer,
                      std::string_view chat_template, const DatasetOptions& options = {}) {
  auto dataset = ParseDataset(content, tokenizer, chat_template, options);
  REQUIRE_MESSAGE(dataset, (dataset ? "" : dataset.error().message));
  return *std::move(dataset);
}

// A document's text, with what is learned between braces.
inline std::string Marked(const Tokenizer& tokenizer, const Corpus& corpus, size_t document) {
  std::string text;
  bool learned = false;
  for (size_t i = 0; i < corpus.tokens(document).size(); ++i) {
    if ((corpus.learned(document)[i] != 0) != learned) text += learned ? "}" : "{";
    learned = corpus.learned(document)[i] != 0;
    text += tokenizer.PieceBytes(corpus.tokens(document)[i], true);
  }
  return learned ? text + "}" : text;
}

inline std::vector<std::string> Marked(const Tokenizer& tokenizer, const Dataset& dataset) {
  std::vector<std::string> texts;
  for (size_t i = 0; i < dataset.corpus.size(); ++i) {
    texts.push_back(Marked(tokenizer, dataset.corpus, i));
  }
  return texts;
}

inline Ids Tokens(const Corpus& corpus, size_t document) {
  return {corpus.tokens(document).begin(), corpus.tokens(document).end()};
}

inline std::string ErrorOf(std::string_view content, std::string_view chat_template = {},
                           const DatasetOptions& options = {}) {
  const auto tokenizer = Stories();
  const auto dataset = ParseDataset(content, *tokenizer, chat_template, options);
  REQUIRE_FALSE(dataset);
  CHECK(dataset.error().code == Code::kBadData);
  return dataset.error().message;
}

inline bool Has(std::string_view text, std::string_view part) {
  return text.find(part) != text.npos;
}

inline constexpr const char* kAlpacaPrompt =
    "<s> Below is an instruction that describes a task. Write a response that appropriately "
    "completes the request.\n\n### Instruction:\nSay hi\n\n### Response:";
inline constexpr const char* kAlpacaPromptWithInput =
    "<s> Below is an instruction that describes a task, paired with an input that provides further "
    "context. Write a response that appropriately completes the request.\n\n### Instruction:\nAdd"
    "\n\n### Input:\n1 2\n\n### Response:";

inline std::string Conversation(std::string_view turns) {
  return "{\"messages\": [" + std::string(turns) + "]}";
}
inline constexpr const char* kTwoTurns =
    R"({"role": "user", "content": "hi"}, {"role": "assistant", "content": "yes"},)"
    R"({"role": "user", "content": "and"}, {"role": "assistant", "content": "no"})";

}  // namespace edgewise::train
