// Training files of every format: which tokens come out, which of them are learned, and what broken
// files do.
#include "train/dataset.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "base/file.h"
#include "base/strings.h"
#include "tests/test_data.h"
#include "text/tokenizer_files.h"

namespace edgewise::train {
namespace {

constexpr const char* kChatMl =
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' + "
    "'\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

using Ids = std::vector<int32_t>;

const std::vector<std::string> kChatTokens = {"<|im_start|>", "<|im_end|>"};

// The vocabulary of the model in this repository, with `controls` in place of its last tokens.
std::unique_ptr<Tokenizer> Stories(const std::vector<std::string>& controls = {}) {
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

Dataset Parsed(std::string_view content, const Tokenizer& tokenizer, std::string_view chat_template,
               const DatasetOptions& options = {}) {
  auto dataset = ParseDataset(content, tokenizer, chat_template, options);
  REQUIRE_MESSAGE(dataset, (dataset ? "" : dataset.error().message));
  return *std::move(dataset);
}

// A document's text, with what is learned between braces.
std::string Marked(const Tokenizer& tokenizer, const Corpus& corpus, size_t document) {
  std::string text;
  bool learned = false;
  for (size_t i = 0; i < corpus.tokens(document).size(); ++i) {
    if ((corpus.learned(document)[i] != 0) != learned) text += learned ? "}" : "{";
    learned = corpus.learned(document)[i] != 0;
    text += tokenizer.PieceBytes(corpus.tokens(document)[i], true);
  }
  return learned ? text + "}" : text;
}

std::vector<std::string> Marked(const Tokenizer& tokenizer, const Dataset& dataset) {
  std::vector<std::string> texts;
  for (size_t i = 0; i < dataset.corpus.size(); ++i) {
    texts.push_back(Marked(tokenizer, dataset.corpus, i));
  }
  return texts;
}

Ids Tokens(const Corpus& corpus, size_t document) {
  return {corpus.tokens(document).begin(), corpus.tokens(document).end()};
}

std::string ErrorOf(std::string_view content, std::string_view chat_template = {},
                    const DatasetOptions& options = {}) {
  const auto tokenizer = Stories();
  const auto dataset = ParseDataset(content, *tokenizer, chat_template, options);
  REQUIRE_FALSE(dataset);
  CHECK(dataset.error().code == Code::kBadData);
  return dataset.error().message;
}

bool Has(std::string_view text, std::string_view part) { return text.find(part) != text.npos; }

TEST_CASE("Formats have names") {
  for (const char* name : {"text", "jsonl", "alpaca", "dolly", "sharegpt", "chatml"}) {
    const auto format = ParseDatasetFormat(name);
    REQUIRE(format);
    CHECK(DatasetFormatName(*format) == std::string(name));
  }
  const auto unknown = ParseDatasetFormat("csv");
  REQUIRE_FALSE(unknown);
  CHECK(unknown.error().message ==
        "unknown format of training data \"csv\"; there are text, jsonl, alpaca, dolly, sharegpt, "
        "chatml");
}

TEST_CASE("Documents of text are learned whole") {
  const auto tokenizer = Stories();
  const Dataset dataset =
      Parsed("Once upon\n<|endoftext|>\n\n<|endoftext|> a time </s>", *tokenizer, "");
  CHECK(dataset.format == DatasetFormat::kText);
  CHECK(dataset.bad_row_count == 0);
  CHECK(Marked(*tokenizer, dataset) ==
        std::vector<std::string>{"{<s> Once upon</s>}", "{<s> a time </s></s>}"});
  const Ids second = Tokens(dataset.corpus, 1);
  CHECK(second.front() == *tokenizer->vocab().bos);
  CHECK(second.back() == *tokenizer->vocab().eos);
  // "</s>" that a text spells is no token.
  CHECK(std::count(second.begin(), second.end(), *tokenizer->vocab().eos) == 1);
}

TEST_CASE("A vocabulary that asks for no BOS and has no EOS gets none") {
  Vocab vocab = Stories()->vocab();
  vocab.add_bos = false;
  vocab.eos.reset();
  const auto tokenizer = Tokenizer::Create(std::move(vocab));
  REQUIRE(tokenizer);
  CHECK(Marked(**tokenizer, Parsed("Once upon", **tokenizer, "")) ==
        std::vector<std::string>{"{ Once upon}"});
}

TEST_CASE("JSON lines of texts") {
  const auto tokenizer = Stories();
  const Dataset dataset =
      Parsed("\xEF\xBB\xBF{\"text\": \"Once upon\"}\r\n\n{\"id\": 3, \"text\": \"a time\\n\"}",
             *tokenizer, "");
  CHECK(dataset.format == DatasetFormat::kJsonLines);
  CHECK(Marked(*tokenizer, dataset) ==
        std::vector<std::string>{"{<s> Once upon</s>}", "{<s> a time\n</s>}"});
}

constexpr const char* kAlpacaPrompt =
    "<s> Below is an instruction that describes a task. Write a response that appropriately "
    "completes the request.\n\n### Instruction:\nSay hi\n\n### Response:";
constexpr const char* kAlpacaPromptWithInput =
    "<s> Below is an instruction that describes a task, paired with an input that provides further "
    "context. Write a response that appropriately completes the request.\n\n### Instruction:\nAdd"
    "\n\n### Input:\n1 2\n\n### Response:";

TEST_CASE("Alpaca's rows in its own words, as lines and as one array") {
  const auto tokenizer = Stories();
  const std::string first = R"({"instruction": "Say hi", "input": "", "output": "Hi!"})";
  const std::string second = R"({"instruction": "Add", "input": "1 2", "response": "3"})";
  const std::vector<std::string> expected = {kAlpacaPrompt + std::string("{Hi!</s>}"),
                                             kAlpacaPromptWithInput + std::string("{3</s>}")};
  for (const std::string& content :
       {first + "\n" + second + "\n", "[\n" + first + ",\n" + second + "\n]\n",
        " [" + first + "," + second + "]"}) {
    const Dataset dataset = Parsed(content, *tokenizer, "");
    CHECK(dataset.format == DatasetFormat::kAlpaca);
    CHECK(dataset.bad_row_count == 0);
    CHECK(Marked(*tokenizer, dataset) == expected);
  }
}

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

TEST_CASE("Dolly's rows by the model's chat template") {
  const auto tokenizer = Stories(kChatTokens);
  const Dataset dataset = Parsed(
      R"({"instruction": "Add", "context": "1 2", "response": "3", "category": "closed_qa"})"
      "\n"
      R"({"instruction": "Say hi", "context": "", "response": "Hi<|im_end|>", "category": "qa"})",
      *tokenizer, kChatMl);
  CHECK(dataset.format == DatasetFormat::kDolly);
  CHECK(Marked(*tokenizer, dataset) ==
        std::vector<std::string>{
            "<s><|im_start|> user\nAdd\n\n1 2<|im_end|> \n<|im_start|> assistant\n{3<|im_end|>}",
            "<s><|im_start|> user\nSay hi<|im_end|> \n<|im_start|> assistant\n"
            "{Hi<|im_end|><|im_end|>}"});
  // What a row spells is no control token.
  const Ids poisoned = Tokens(dataset.corpus, 1);
  CHECK(std::count(poisoned.begin(), poisoned.end(), tokenizer->size() - 1) == 2);
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

std::string Conversation(std::string_view turns) {
  return "{\"messages\": [" + std::string(turns) + "]}";
}
constexpr const char* kTwoTurns =
    R"({"role": "user", "content": "hi"}, {"role": "assistant", "content": "yes"},)"
    R"({"role": "user", "content": "and"}, {"role": "assistant", "content": "no"})";

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

TEST_CASE("Bad rows are left out, counted and told by line") {
  const auto tokenizer = Stories(kChatTokens);
  const std::string deep = "{\"instruction\": " + std::string(100000, '[');
  const std::vector<std::array<std::string, 2>> rows = {
      {R"({"instruction": "a", "output": "fine"})", ""},
      {R"({"instruction": "a", "output": )", "invalid JSON"},
      {R"({"instruction": "a"})", "the member \"output\" is missing"},
      {R"({"output": "a"})", "the member \"instruction\" is missing"},
      {R"({"instruction": 7, "output": "b"})", "\"instruction\" must be a string, not number"},
      {R"({"instruction": "a", "output": null})", "\"output\" must be a string, not null"},
      {R"({"instruction": "a", "input": [], "output": "b"})", "\"input\" must be a string"},
      {R"({"instruction": "a", "output": " \n"})", "the answer is empty"},
      {R"({"instruction": "a", "output": "b\u0000c"})", "\"output\" holds a NUL character"},
      {"{\"instruction\": \"a\", \"output\": \"\xFF\"}", "invalid"},
      {std::string("{\"instruction\": \"a\0\", \"output\": \"b\"}", 36), "invalid JSON"},
      {R"({"instruction": "a", "output": "\ud800"})", "invalid JSON"},
      {R"(["a"])", "a row must be an object, not array"},
      {deep, "JSON nested deeper than 64 levels"},
      {R"({"instruction": "a", "output": ")" + std::string(3000, 'b') + "\"}", "at most 2000"},
      {R"({"instruction": "a", "instruction": "a", "output": "b"})", "twice"},
  };
  std::string content;
  for (const auto& [row, problem] : rows) content += row + "\n";
  DatasetOptions options;
  options.max_row_bytes = 2000;
  // The depth is looked at where the length allows it.
  const std::string bomb = "{\"instruction\": " + std::string(1500, '[');
  content += bomb + "\n";
  const Dataset dataset = Parsed(content, *tokenizer, kChatMl, options);
  CHECK(dataset.format == DatasetFormat::kAlpaca);
  CHECK(dataset.corpus.size() == 1);
  CHECK(dataset.bad_row_count == rows.size());
  REQUIRE(dataset.bad_rows.size() == rows.size());
  for (size_t i = 1; i < rows.size(); ++i) {
    CAPTURE(dataset.bad_rows[i - 1].problem);
    CHECK(dataset.bad_rows[i - 1].line == i + 1);
    if (rows[i][0] != deep) CHECK(Has(dataset.bad_rows[i - 1].problem, rows[i][1]));
  }
  CHECK(Has(dataset.bad_rows.back().problem, "deeper than 64 levels"));

  options.strict = true;
  const auto strict = ParseDataset(content, *tokenizer, kChatMl, options);
  REQUIRE_FALSE(strict);
  CHECK(Has(strict.error().message, "line 2: invalid JSON"));
}

TEST_CASE("Bad conversations") {
  const auto tokenizer = Stories(kChatTokens);
  const std::vector<std::array<std::string, 2>> rows = {
      {Conversation(kTwoTurns), ""},
      {R"({"messages": {}})", "the member \"messages\" must be an array, not object"},
      {R"({"text": "a"})", "the member \"messages\" is missing"},
      {Conversation(""), "the conversation has no answer"},
      {Conversation(R"({"role": "user", "content": "a"})"), "the conversation has no answer"},
      {Conversation("3"), "message 1: it must be an object, not number"},
      {Conversation(R"({"role": "tool", "content": "a"})"),
       "message 1: unknown role \"tool\"; it may be system, user or assistant"},
      {Conversation(R"({"role": "user", "content": "a"}, {"role": "assistant"})"),
       "message 2: the member \"content\" is missing"},
      {Conversation(R"({"role": "user", "content": "a"}, {"role": "assistant", "content": ""})"),
       "message 2: the answer is empty"},
  };
  std::string content, many;
  for (const auto& [row, problem] : rows) content += row + "\n";
  for (int i = 0; i < 1001; ++i) many += R"({"role": "user", "content": "a"},)";
  content += Conversation(many + R"({"role": "assistant", "content": "b"})");
  const Dataset dataset = Parsed(content, *tokenizer, kChatMl);
  CHECK(dataset.corpus.size() == 1);
  REQUIRE(dataset.bad_rows.size() == rows.size());
  for (size_t i = 1; i < rows.size(); ++i) {
    CHECK(dataset.bad_rows[i - 1].line == i + 1);
    CHECK(dataset.bad_rows[i - 1].problem == rows[i][1]);
  }
  CHECK(dataset.bad_rows.back().problem ==
        "the conversation has 1002 messages; at most 1000 are read here");
}

TEST_CASE("Only the first bad rows are told, all are counted") {
  std::string content = "{\"text\": \"a\"}\n";
  for (int i = 0; i < 50; ++i) content += "{\n";
  const Dataset dataset = Parsed(content, *Stories(), "");
  CHECK(dataset.bad_row_count == 50);
  REQUIRE(dataset.bad_rows.size() == 20);
  CHECK(dataset.bad_rows.back().line == 21);
}

TEST_CASE("Broken arrays keep the rows that can be told apart") {
  const auto tokenizer = Stories();
  const auto read = [&](std::string_view content) {
    const Dataset dataset = Parsed(content, *tokenizer, "");
    std::string lines;
    for (const BadRow& row : dataset.bad_rows) lines += Format("%d,", static_cast<int>(row.line));
    return Format("%zu good; bad on ", dataset.corpus.size()) + lines;
  };
  CHECK(read("[{\"text\": \"a\"}, 7, \"x\",\n [], {\"text\": \"]\\\"}[\"}]") ==
        "2 good; bad on 1,1,2,");
  // A quote too many spoils its row, as a line end is in no string.
  CHECK(read("[{\"text\": \"a\"b\"},\n{\"text\":\n\"c\"},\n{\"text\": \"d\"}]") ==
        "2 good; bad on 1,");
  CHECK(read("[{\"text\": \"a\"},\n{\"text\": \"b\"") == "1 good; bad on 2,");
  CHECK(read("[{\"text\": \"a\"},\n") == "1 good; bad on 2,");
  CHECK(read("[{\"text\": \"a\"}]\n\n{\"text\": \"b\"}") == "1 good; bad on 3,");
  CHECK(read("[{\"text\": \"a\"}] \n ") == "1 good; bad on ");
}

TEST_CASE("Cut anywhere, an array gives the rows before the cut") {
  const auto tokenizer = Stories();
  const std::string row = R"({"text": "a\"]}"})", content = "[" + row + "," + row + "]";
  for (size_t size = row.size() + 1; size < content.size(); ++size) {
    CAPTURE(size);
    const Dataset dataset = Parsed(content.substr(0, size), *tokenizer, "");
    CHECK(dataset.corpus.size() == (size < 2 * row.size() + 2 ? 1 : 2));
    CHECK(dataset.bad_row_count == 1);
  }
}

TEST_CASE("Files with nothing good in them are errors") {
  CHECK(ErrorOf("") == "holds nothing to train on");
  CHECK(ErrorOf(" \n<|endoftext|>\n") == "holds nothing to train on");
  CHECK(ErrorOf("[]") == "holds nothing to train on");
  CHECK(Has(ErrorOf("a\xFF"), "line 1: the document is not UTF-8"));
  CHECK(Has(ErrorOf(std::string_view("\n\na\0b", 5)), "line 3: the document holds a NUL"));
  const std::string unknown = ErrorOf("{\"question\": \"a\"}\n{}\n");
  CHECK(Has(unknown, "none of 2 rows can be read; line 1: no members of a known format"));
  CHECK(Has(unknown, "The formats are text, jsonl, alpaca, dolly, sharegpt, chatml"));
  CHECK(Has(ErrorOf("plain", "", {.format = DatasetFormat::kDolly}),
            "none of 1 rows can be read as dolly; line 1: invalid JSON"));
}

TEST_CASE("A format that is given is not guessed") {
  const auto tokenizer = Stories();
  const Dataset text = Parsed("{\"text\": 1}", *tokenizer, "", {.format = DatasetFormat::kText});
  CHECK(Marked(*tokenizer, text).front() == "{<s> {\"text\": 1}</s>}");
  const Dataset alpaca = Parsed(R"({"instruction": "Say hi", "context": "x", "output": "Hi!"})",
                                *tokenizer, "", {.format = DatasetFormat::kAlpaca});
  CHECK(Marked(*tokenizer, alpaca).front() == kAlpacaPrompt + std::string("{Hi!</s>}"));
}

TEST_CASE("The first good row tells the format") {
  const Dataset dataset =
      Parsed("{\"messages\": 3}\n{\"text\": \"a\"}\n{\"instruction\": \"a\", \"output\": \"b\"}\n",
             *Stories(), "");
  CHECK(dataset.format == DatasetFormat::kJsonLines);
  CHECK(dataset.corpus.size() == 1);
  CHECK(dataset.bad_row_count == 2);
}

TEST_CASE("Files, with their path in errors") {
  const auto tokenizer = Stories();
  const TemporaryFolder folder;
  CHECK_FALSE(ReadDataset(folder / "absent", *tokenizer, ""));
  const std::string path = folder / "a.jsonl";
  auto file = AtomicFile::Create(path, false);
  REQUIRE(file);
  // More than the pages that are dropped behind the reader.
  const std::string row = "{\"text\": \"a\", \"pad\": \"" + std::string(1 << 20, 'x') + "\"}\n";
  for (int i = 0; i < 20; ++i) REQUIRE(file->Write(row));
  REQUIRE(file->Write("{}\n"));
  REQUIRE(file->Commit());
  const auto dataset = ReadDataset(path, *tokenizer, "");
  REQUIRE(dataset);
  CHECK(dataset->corpus.size() == 20);
  CHECK(dataset->bad_rows.front().line == 21);
  const auto strict = ReadDataset(path, *tokenizer, "", {.strict = true});
  REQUIRE_FALSE(strict);
  CHECK(strict.error().message == path + ": line 21: the member \"text\" is missing");
}

TEST_CASE("GPTeacher's instructions are read whole") {
  const auto tokenizer = Stories(kChatTokens);
  for (const auto& [name, rows] : std::vector<std::pair<std::string, size_t>>{
           {"gpteacher_codegen.json", 4535}, {"gpteacher_roleplay.json", 1923}}) {
    EW_EXTERNAL_OR_SKIP(path, "data/instruct/" + name);
    for (const char* chat_template : {"", kChatMl}) {
      const auto dataset = ReadDataset(path, *tokenizer, chat_template, {.strict = true});
      REQUIRE_MESSAGE(dataset, (dataset ? "" : dataset.error().message));
      CHECK(dataset->format == DatasetFormat::kAlpaca);
      CHECK(dataset->corpus.size() == rows);
      const int32_t end = *chat_template ? tokenizer->size() - 1 : *tokenizer->vocab().eos;
      for (size_t i = 0; i < rows; ++i) {
        const auto learned = dataset->corpus.learned(i);
        CHECK(dataset->corpus.tokens(i).back() == end);
        // One answer, at the end.
        CHECK(std::is_sorted(learned.begin(), learned.end()));
        CHECK((learned.front() == 0 && learned.back() == 1));
      }
    }
  }
}

}  // namespace
}  // namespace edgewise::train
