// What of an example is learned, by chat templates of many families and without one.
#include "train/example_encoder.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <string>
#include <vector>

#include "base/file.h"
#include "base/json.h"
#include "base/strings.h"
#include "tests/test_data.h"
#include "text/chat_template.h"
#include "text/prompt.h"
#include "train/dataset.h"
#include "train/test_dataset.h"

namespace edgewise::train {
namespace {

TEST_CASE("What is learned continues the prompt as it is tokenized in use") {
  const auto tokenizer = Stories();
  const Dataset dataset =
      Parsed(R"({"instruction": "Say hi", "output": "Once upon"})", *tokenizer, "");
  const auto prompt = tokenizer->Encode(std::string(kAlpacaPrompt).substr(4));
  const auto answer = tokenizer->Encode("Once upon", {.add_special = false, .continues = true});
  REQUIRE(prompt);
  REQUIRE(answer);
  Ids expected = *prompt;
  expected.insert(expected.end(), answer->begin(), answer->end());
  expected.push_back(*tokenizer->vocab().eos);
  CHECK(Tokens(dataset.corpus, 0) == expected);
  for (size_t i = 0; i < expected.size(); ++i) {
    CHECK((dataset.corpus.learned(0)[i] != 0) == (i >= prompt->size()));
  }
}

TEST_CASE("Conversations: every answer is learned, with the token that ends it") {
  const auto tokenizer = Stories(kChatTokens);
  const std::vector<std::string> expected = {
      "<s><|im_start|> system\nBe kind<|im_end|> \n<|im_start|> user\nhi<|im_end|> \n"
      "<|im_start|> assistant\n{yes<|im_end|>} \n<|im_start|> user\nand<|im_end|> \n"
      "<|im_start|> assistant\n{no<|im_end|>}"};
  const Dataset share = Parsed(
      R"([{"id": "x", "conversations": [{"from": "system", "value": "Be kind"},
           {"from": "human", "value": "hi"}, {"from": "gpt", "value": "yes"},
           {"from": "human", "value": "and"}, {"from": "gpt", "value": "no"},
           {"from": "human", "value": "unanswered"}]}])",
      *tokenizer, kChatMl);
  CHECK(share.format == DatasetFormat::kShareGpt);
  CHECK(Marked(*tokenizer, share) == expected);
  const Dataset chat = Parsed(
      R"({"messages": [{"role": "system", "content": "Be kind"}, {"role": "user", "content": "hi"},)"
      R"({"role": "assistant", "content": "yes"}, {"role": "user", "content": "and"},)"
      R"({"role": "assistant", "content": "no"}]})",
      *tokenizer, kChatMl);
  CHECK(chat.format == DatasetFormat::kChatMl);
  CHECK(Marked(*tokenizer, chat) == expected);
}

TEST_CASE("Templates without an end of generation, and with more at the very end") {
  const auto tokenizer = Stories();
  const std::string content = Conversation(kTwoTurns);
  // Nothing ends an answer but the line: EOS ends the last one.
  CHECK(
      Marked(*tokenizer, Parsed(content, *tokenizer,
                                "{% for m in messages %}{{ m.role + ': ' + m.content + '\n' }}"
                                "{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}"))
          .front() == "<s> user: hi\nassistant:{ yes\n}user: and\nassistant:{ no\n</s>}");
  // As Phi-3's: EOS follows a whole conversation, which is cut at the last answer's end.
  const auto phi = [](const char* end) {
    return std::string("{% for m in messages %}{{ '[' + m.role + ']' + m.content + '") + end +
           "' }}{% endfor %}{{ '[assistant]' if add_generation_prompt else eos_token }}";
  };
  CHECK(Marked(*tokenizer, Parsed(content, *tokenizer, phi("</s>\n"))).front() ==
        "<s> [user]hi</s> \n[assistant]{yes</s>} \n[user]and</s> \n[assistant]{no</s>}");
  // Mistral's write no prompt for the answer.
  CHECK(
      Marked(*tokenizer,
             Parsed(content, *tokenizer,
                    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}{{ '[INST] ' + "
                    "m.content + ' [/INST]' }}{% else %}{{ m.content + eos_token }}{% endif %}"
                    "{% endfor %}"))
          .front() == "<s> [INST] hi [/INST]{yes</s>} [INST] and [/INST]{no</s>}");
}

TEST_CASE("Templates that cannot be masked say so") {
  const std::string content = Conversation(kTwoTurns);
  const std::string counts =
      ErrorOf(content, "{{ messages | length }}{% for m in messages %}{{ m.content }}{% endfor %}");
  CHECK(Has(counts,
            "line 1: the chat template renders the prompt for message 2, an answer, "
            "otherwise than the whole conversation up to there"));
  CHECK(Has(ErrorOf(content,
                    "{% for m in messages %}{% if m.role == 'user' %}{{ m.content }}"
                    "{% endif %}{% endfor %}"),
            "renders the prompt for message 4"));
  CHECK(Has(ErrorOf(content, "{{ raise_exception('no') }}"), "line 1: the chat template says: no"));
  CHECK(Has(ErrorOf(content, "{% for %}"), "the model's chat template cannot be used"));
  CHECK(Has(ErrorOf(R"({"instruction": "a", "output": "b"})", "{% for %}"),
            "the model's chat template cannot be used"));
  CHECK(Has(ErrorOf(content), "the model has no chat template"));
}

TEST_CASE("The templates of model families mark what a model generates") {
  const auto tokenizer =
      Stories({"<|im_start|>", "<|im_end|>", "<|end|>", "<|eot_id|>", "<end_of_turn>"});
  const std::string chatml =
      "<|im_start|> user\nhi<|im_end|> \n<|im_start|> assistant\n{yes<|im_end|>} \n"
      "<|im_start|> user\nand<|im_end|> \n<|im_start|> assistant\n{";
  const std::string system = "<s><|im_start|> system\nYou are a helpful assistant.<|im_end|> \n";
  const std::string gemma =
      "<s> <start_of_turn>user\nhi<end_of_turn> \n<start_of_turn>model\n{yes<end_of_turn>} \n"
      "<start_of_turn>user\nand<end_of_turn> \n<start_of_turn>model\n{no<end_of_turn>}";
  const std::string llama =
      " <|start_header_id|>user<|end_header_id|>\n\nhi<|eot_id|> <|start_header_id|>assistant"
      "<|end_header_id|>\n\n{yes<|eot_id|>} <|start_header_id|>user<|end_header_id|>\n\nand"
      "<|eot_id|> <|start_header_id|>assistant<|end_header_id|>\n\n{no<|eot_id|>}";
  const std::string date =
      "<s> <|start_header_id|>system<|end_header_id|>\n\nCutting Knowledge Date: December 2023\n"
      "Today Date: 26 Jul 2024\n\n<|eot_id|>";
  const std::vector<std::array<std::string, 2>> expected = {
      {"chatml", system + chatml + "no<|im_end|>}"},
      {"gemma-2", gemma},
      {"gemma-3", gemma},
      {"llama-2", "<s> [INST] hi [/INST]{ yes </s>}<s> [INST] and [/INST]{ no </s>}"},
      {"llama-3", "<s>" + llama},
      {"llama-3.1", date + llama},
      {"mistral-v1", "<s> [INST] hi [/INST]{yes</s>}  [INST] and [/INST]{no</s>}"},
      {"mistral-v3", "<s> [INST] hi[/INST]{ yes</s>} [INST] and[/INST]{ no</s>}"},
      {"phi-3",
       "<s> <|user|>\nhi<|end|> \n<|assistant|>\n{yes<|end|>} \n<|user|>\nand<|end|> \n"
       "<|assistant|>\n{no<|end|>}"},
      {"qwen-2.5", system + chatml + "no<|im_end|>}"},
      {"qwen-3", "<s>" + chatml + "<think>\n\n</think>\n\nno<|im_end|>}"},
      {"zephyr",
       "<s> <|user|>\nhi</s> \n<|assistant|>\n{yes</s>} \n<|user|>\nand</s> \n<|assistant|>\n"
       "{no</s>}"},
  };
  for (const auto& [name, text] : expected) {
    CAPTURE(name);
    const auto source = ReadFile(SourcePath("src/text/jinja/testdata/" + name + ".jinja"), 1 << 20);
    REQUIRE(source);
    const Dataset dataset = Parsed(Conversation(kTwoTurns), *tokenizer, *source);
    CHECK(Marked(*tokenizer, dataset.corpus, 0) == text);
  }
}

TEST_CASE("A chat's prompt is what training has before the answer") {
  const auto tokenizer = Stories({"<|im_start|>", "<|im_end|>", "<|end|>"});
  const std::string question = R"({"role": "user", "content": "Say hi"})";
  for (const char* name : {"chatml", "gemma-3", "llama-2", "llama-3", "phi-3", "zephyr"}) {
    const auto source =
        ReadFile(SourcePath(std::string("src/text/jinja/testdata/") + name + ".jinja"), 1 << 20);
    REQUIRE(source);
    const Dataset dataset =
        Parsed(Conversation(question + R"(, {"role": "assistant", "content": "\n Hi!"})"),
               *tokenizer, *source);
    const auto chat_template = ChatTemplate::Parse(*source);
    const auto messages = ParseJson("[" + question + "]");
    REQUIRE((chat_template && messages));
    const auto parts = chat_template->Render(ChatContext(tokenizer->vocab(), *messages, true));
    REQUIRE(parts);
    const auto prompt = EncodePrompt(*tokenizer, *parts);
    REQUIRE(prompt);
    const auto learned = dataset.corpus.learned(0);
    const Ids ids = Tokens(dataset.corpus, 0);
    REQUIRE(ids.size() > prompt->size());
    CHECK(std::equal(prompt->begin(), prompt->end(), ids.begin()));
    CHECK(std::find(learned.begin(), learned.end(), 1) - learned.begin() ==
          static_cast<ptrdiff_t>(prompt->size()));
  }
}

// A document's ids, those that are learned with a star.
std::string Starred(const Corpus& corpus, size_t document) {
  std::vector<std::string> words;
  for (size_t i = 0; i < corpus.tokens(document).size(); ++i) {
    words.push_back(std::to_string(corpus.tokens(document)[i]) +
                    (corpus.learned(document)[i] ? "*" : ""));
  }
  return Join(words, " ");
}

TEST_CASE("The ids and masks of a row in each format") {
  const auto tokenizer = Stories(kChatTokens);
  const auto starred = [&](std::string_view content) {
    return Starred(Parsed(content, *tokenizer, kChatMl).corpus, 0);
  };
  const std::string text = "1* 556* 436* 261* 389* 2*";
  CHECK(starred("Once upon a time") == text);
  CHECK(starred(R"({"text": "Once upon a time"})") == text);
  const std::string answer =
      "1 2046 323 945 13 1994 290 13 13 1970 1972 2047 1965 13 2046 400 1973 679 675 13 1999* 543* "
      "436* 2047*";
  CHECK(starred(R"({"instruction": "Say", "input": "hi", "output": "Once upon"})") == answer);
  CHECK(starred(R"({"instruction": "Say", "context": "hi", "response": "Once upon"})") == answer);
  CHECK(starred(R"({"conversations": [{"from": "human", "value": "Say\n\nhi"},)"
                R"({"from": "gpt", "value": "Once upon"}]})") == answer);
  CHECK(starred(Conversation(kTwoTurns)) ==
        "1 2046 323 945 13 1970 1972 2047 1965 13 2046 400 1973 679 675 13 746* 2047* 1965 13 2046 "
        "323 945 13 919 2047 1965 13 2046 400 1973 679 675 13 1493* 2047*");
}

}  // namespace
}  // namespace edgewise::train
