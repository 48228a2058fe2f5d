// Training files of every format: which documents come out, and what broken files do.
#include "train/dataset.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <string>
#include <utility>
#include <vector>

#include "base/file.h"
#include "base/strings.h"
#include "tests/test_data.h"
#include "train/test_dataset.h"

namespace edgewise::train {
namespace {

TEST_CASE("Formats have names") {
  for (const char* name : {"text", "jsonl", "alpaca", "dolly", "sharegpt", "chatml"}) {
    const auto format = ParseDatasetFormat(name);
    REQUIRE(format);
    CHECK(DatasetFormatName(*format) == std::string(name));
  }
  const auto unknown = ParseDatasetFormat("csv");
  REQUIRE_FALSE(unknown);
  CHECK(unknown.error().message ==
        "unknown format of training data \"csv\"; there are text, jsonl, alpaca, dolly, "
        "completion, sharegpt, "
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

TEST_CASE("Prompts as they stand, of which the completions are learned") {
  const auto tokenizer = Stories(kChatTokens);
  const Dataset dataset = Parsed(R"({"prompt": "A dull film. It was", "completion": " bad."})"
                                 "\n"
                                 R"({"prompt": "", "completion": "Hi<|im_end|>", "id": 2})"
                                 "\n"
                                 R"({"prompt": "Say hi", "completion": " "})"
                                 "\n"
                                 R"({"prompt": 1, "completion": "a"})",
                                 *tokenizer, kChatMl);
  CHECK(dataset.format == DatasetFormat::kCompletion);
  const std::vector<std::string> marked = Marked(*tokenizer, dataset);
  REQUIRE(marked.size() == 2);
  CHECK(marked[0] == "<s> A dull film. It was{ bad.</s>}");
  CHECK(marked[1] == "<s>{ Hi<|im_end|></s>}");
  REQUIRE(dataset.bad_rows.size() == 2);
  CHECK(dataset.bad_rows[0].line == 3);
  CHECK(dataset.bad_rows[0].problem == "the answer is empty");
  CHECK(Has(dataset.bad_rows[1].problem, "\"prompt\" must be a string"));
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
  CHECK(Has(unknown, "The formats are text, jsonl, alpaca, dolly, completion, sharegpt, chatml"));
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

TEST_CASE("elements of an array have one comma between them") {
  const std::string row = R"({"text": "A cat sat on the mat."})";
  const struct {
    std::string content;
    uint64_t bad;
  } arrays[] = {{"[" + row + "," + row + "]", 0},
                {"[" + row + row + "]", 1},
                {"[" + row + " ,, " + row + "]", 1},
                {"[," + row + "]", 1}};
  for (const auto& array : arrays) {
    CAPTURE(array.content);
    const auto data = ParseDataset(array.content, *Stories(), "");
    REQUIRE(data.has_value());
    CHECK(data->bad_row_count == array.bad);
  }
}

}  // namespace
}  // namespace edgewise::train
