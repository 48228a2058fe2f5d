// Ids of independent implementations for real vocabularies, and texts made to hurt.
#include <doctest/doctest.h>

#include <memory>
#include <string>
#include <vector>

#include "base/file.h"
#include "base/rng.h"
#include "base/strings.h"
#include "formats/gguf.h"
#include "tests/test_data.h"
#include "text/tokenizer.h"
#include "text/tokenizer_files.h"

namespace edgewise {
namespace {

struct Case {
  std::string text;
  std::vector<int32_t> ids;
};

std::string ReadAll(const std::string& path) {
  auto text = ReadFile(path, 1u << 28);
  REQUIRE_MESSAGE(text.has_value(), (text ? "" : text.error().message));
  return *text;
}

// The cases beside a vocabulary: texts split by a separator line, and one line of ids for each.
std::vector<Case> ReadCases(const std::string& stem) {
  const std::string inputs = ReadAll(stem + ".inp"), outputs = ReadAll(stem + ".out");
  auto texts = Split(inputs, "\n__ggml_vocab_test__\n");
  auto lines = Split(outputs, "\n");
  if (texts.back().empty()) texts.pop_back();
  if (lines.back().empty()) lines.pop_back();
  REQUIRE(texts.size() == lines.size());
  std::vector<Case> cases;
  for (size_t i = 0; i < texts.size(); ++i) {
    Case c{std::string(texts[i]), {}};
    for (const auto word : Split(lines[i], " ")) {
      if (!word.empty()) c.ids.push_back(static_cast<int32_t>(*ParseInt(word)));
    }
    cases.push_back(std::move(c));
  }
  return cases;
}

std::unique_ptr<Tokenizer> Make(Result<Vocab> vocab) {
  REQUIRE_MESSAGE(vocab.has_value(), (vocab ? "" : vocab.error().message));
  auto tokenizer = Tokenizer::Create(*std::move(vocab));
  REQUIRE_MESSAGE(tokenizer.has_value(), (tokenizer ? "" : tokenizer.error().message));
  return *std::move(tokenizer);
}

Vocab VocabOfGguf(const std::string& path) {
  auto file = GgufFile::Open(path);
  REQUIRE_MESSAGE(file.has_value(), (file ? "" : file.error().message));
  const Metadata& m = file->metadata();
  Vocab v;
  const std::string model = *m.GetString("tokenizer.ggml.model");
  v.kind = model == "llama"  ? TokenizerKind::kSpm
           : model == "gpt2" ? TokenizerKind::kBpe
           : model == "bert" ? TokenizerKind::kWordPiece
                             : TokenizerKind::kUnigram;
  v.pre = *m.GetString("tokenizer.ggml.pre", "");
  v.tokens = *m.FindStrings("tokenizer.ggml.tokens");
  if (const auto* scores = m.FindFloats("tokenizer.ggml.scores")) v.scores = *scores;
  const std::vector<int64_t> types = *m.GetInts("tokenizer.ggml.token_type");
  for (const int64_t type : types) {
    v.types.push_back(static_cast<TokenType>(type));
  }
  if (const auto* merges = m.FindStrings("tokenizer.ggml.merges")) v.merges = *merges;
  const auto id = [&m](const char* key) -> std::optional<int32_t> {
    if (!m.Find(key)) return std::nullopt;
    return static_cast<int32_t>(*m.GetUint(key));
  };
  v.bos = id("tokenizer.ggml.bos_token_id");
  v.eos = id("tokenizer.ggml.eos_token_id");
  v.unk = id("tokenizer.ggml.unknown_token_id");
  v.cls = id("tokenizer.ggml.cls_token_id");
  v.sep = id("tokenizer.ggml.seperator_token_id");
  return v;
}

std::vector<int32_t> EncodePlain(const Tokenizer& tokenizer, const std::string& text) {
  auto ids = tokenizer.Encode(text, {.add_special = false});
  REQUIRE_MESSAGE(ids.has_value(), (ids ? "" : ids.error().message));
  return *ids;
}

std::string DecodeAll(const Tokenizer& tokenizer, const std::vector<int32_t>& ids) {
  auto text = tokenizer.Decode(ids);
  REQUIRE_MESSAGE(text.has_value(), (text ? "" : text.error().message));
  return *text;
}

void CheckCases(const Tokenizer& tokenizer, const std::vector<Case>& cases, bool round_trip) {
  CHECK(cases.size() == 46);
  for (const Case& c : cases) {
    CAPTURE(c.text);
    const std::vector<int32_t> ids = EncodePlain(tokenizer, c.text);
    CHECK(ids == c.ids);
    if (round_trip) CHECK(DecodeAll(tokenizer, ids) == c.text);
  }
}

// Text of about `bytes` bytes that is hard on one part or another of a tokenizer.
std::vector<std::pair<std::string, std::string>> HardTexts(size_t bytes) {
  std::vector<std::pair<std::string, std::string>> texts;
  const auto repeat = [bytes](const std::string& unit) {
    std::string text;
    while (text.size() < bytes) text += unit;
    return text;
  };
  texts.emplace_back("one letter", repeat("a"));
  texts.emplace_back("spaces", repeat(" "));
  texts.emplace_back("newlines", repeat("\n"));
  texts.emplace_back("digits", repeat("7"));
  texts.emplace_back("Vietnamese",
                     repeat("Tr\xC3\xAD tu\xE1\xBB\x87 nh\xC3\xA2n t\xE1\xBA\xA1o "
                            "gi\xC3\xBAp con ng\xC6\xB0\xE1\xBB\x9Di l\xC3\xA0m vi\xE1\xBB\x87"
                            "c. "));
  texts.emplace_back("Chinese",
                     repeat("\xE6\x88\x91\xE4\xBB\xAC\xE5\x9C\xA8\xE8\xBF\x99\xE9\x87\x8C"));
  texts.emplace_back("English", repeat("The quick brown fox jumps over the lazy dog, twice! "));
  Rng rng(5);
  std::string random, letters;
  while (random.size() < bytes) random += static_cast<char>(rng.Below(256));
  while (letters.size() < bytes) letters += static_cast<char>('a' + rng.Below(26));
  texts.emplace_back("random bytes", random);
  texts.emplace_back("random letters", letters);
  return texts;
}

void CheckHardTexts(const Tokenizer& tokenizer, bool round_trip) {
  for (const auto& [name, text] : HardTexts(100'000)) {
    CAPTURE(name);
    const auto ids = tokenizer.Encode(text, {.add_special = false});
    if (!ids && name == "random bytes") {  // some vocabularies lack the bytes that UTF-8 never uses
      CHECK(ids.error().code == Code::kInvalidArgument);
      continue;
    }
    REQUIRE(ids.has_value());
    CHECK_FALSE((ids->empty() && name == "one letter"));
    if (round_trip) CHECK(DecodeAll(tokenizer, *ids) == text);
  }
}

void CheckGguf(const std::string& path, bool round_trip) {
  const auto tokenizer = Make(VocabOfGguf(path));
  CheckCases(*tokenizer, ReadCases(path), round_trip);
  CheckHardTexts(*tokenizer, round_trip);
}

TEST_CASE("llama-spm") {
  EW_EXTERNAL_OR_SKIP(path, "tokenizers/ggml-vocab-llama-spm.gguf");
  CheckGguf(path, true);
}

TEST_CASE("phi-3") {
  EW_EXTERNAL_OR_SKIP(path, "tokenizers/ggml-vocab-phi-3.gguf");
  CheckGguf(path, true);
}

TEST_CASE("gpt-2") {
  EW_EXTERNAL_OR_SKIP(path, "tokenizers/ggml-vocab-gpt-2.gguf");
  CheckGguf(path, true);
}

TEST_CASE("deepseek-coder") {
  EW_EXTERNAL_OR_SKIP(path, "tokenizers/ggml-vocab-deepseek-coder.gguf");
  CheckGguf(path, true);
}

TEST_CASE("bert-bge") {
  EW_EXTERNAL_OR_SKIP(path, "tokenizers/ggml-vocab-bert-bge.gguf");
  CheckGguf(path, false);
}

}  // namespace
}  // namespace edgewise
