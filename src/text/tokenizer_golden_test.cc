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
#include "text/byte_letters.h"
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

std::span<const std::byte> Bytes(const std::string& text) { return std::as_bytes(std::span(text)); }

// The ids of one pre-token straight from the ranks: merge the neighbours that together have the
// lowest rank.
std::vector<int32_t> EncodeByRanks(const Tokenizer& tokenizer, const std::string& word) {
  std::vector<std::string> parts;
  for (const char c : word) {
    parts.emplace_back();
    AppendByteLetter(static_cast<uint8_t>(c), &parts.back());
  }
  while (true) {
    int32_t best = INT32_MAX;
    size_t where = 0;
    for (size_t i = 0; i + 1 < parts.size(); ++i) {
      const auto id = tokenizer.Find(parts[i] + parts[i + 1]);
      if (id && *id < best) {
        best = *id;
        where = i;
      }
    }
    if (best == INT32_MAX) break;
    parts[where] += parts[where + 1];
    parts.erase(parts.begin() + static_cast<ptrdiff_t>(where) + 1);
  }
  std::vector<int32_t> ids;
  for (const std::string& part : parts) ids.push_back(*tokenizer.Find(part));
  return ids;
}

void CheckAgainstRanks(const Tokenizer& tokenizer) {
  Rng rng(8);
  for (int round = 0; round < 3000; ++round) {
    // One run of letters is one pre-token; two tokens put together make likely merges.
    std::string word;
    if (round % 2 == 0) {
      for (uint64_t i = rng.Below(60) + 1; i > 0; --i)
        word += static_cast<char>('a' + rng.Below(26));
    } else {
      while (word.size() < 8) {
        const std::string piece = tokenizer.PieceBytes(static_cast<int32_t>(rng.Below(128000)));
        for (const char c : piece) {
          if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z')) word += c;
        }
      }
    }
    CAPTURE(word);
    const auto whole = tokenizer.Find(word);
    const auto expected = whole ? std::vector<int32_t>{*whole} : EncodeByRanks(tokenizer, word);
    REQUIRE(EncodePlain(tokenizer, word) == expected);
  }
}

TEST_CASE("llama-bpe from the published ranks") {
  EW_EXTERNAL_OR_SKIP(ranks, "tokenizers/llama3_tiktoken.model");
  EW_EXTERNAL_OR_SKIP(inputs, "tokenizers/ggml-vocab-llama-bpe.gguf.inp");
  const auto tokenizer = Make(ParseTiktokenRanks(ReadAll(ranks)));
  CHECK(tokenizer->size() == 128256);
  // Nearly every token of two bytes or more is made by one merge; to the others no merges lead.
  CHECK(tokenizer->vocab().merges.size() > 127'000);
  CHECK(tokenizer->Find("<|begin_of_text|>") == 128000);
  CHECK(tokenizer->Find("<|eot_id|>") == 128009);
  CHECK(tokenizer->Find("<|reserved_special_token_247|>") == 128255);
  CHECK(tokenizer->IsEndOfGeneration(128009));
  CheckCases(*tokenizer, ReadCases(inputs.substr(0, inputs.size() - 4)), true);
  CheckHardTexts(*tokenizer, true);
  CheckAgainstRanks(*tokenizer);
  CHECK(*tokenizer->Encode("<|eot_id|>", {.parse_special = true}) ==
        std::vector<int32_t>{128000, 128009});
}

// The same vocabulary as a GGUF, by another file: the same ids on all cases and on hard texts.
void CheckSameIds(const Tokenizer& tokenizer, const std::string& gguf) {
  CheckCases(tokenizer, ReadCases(gguf), true);
  const auto other = Make(VocabOfGguf(gguf));
  for (const auto& [name, text] : HardTexts(20'000)) {
    CAPTURE(name);
    CHECK(EncodePlain(tokenizer, text) == EncodePlain(*other, text));
  }
}

TEST_CASE("Llama 2's SentencePiece model") {
  EW_EXTERNAL_OR_SKIP(model, "tokenizers/llama2_tokenizer.model");
  EW_EXTERNAL_OR_SKIP(gguf, "tokenizers/ggml-vocab-llama-spm.gguf");
  const std::string bytes = ReadAll(model);
  const auto tokenizer = Make(ParseSentencePieceModel(Bytes(bytes)));
  CHECK(tokenizer->vocab().bos == 1);
  CHECK(tokenizer->vocab().types[3] == TokenType::kByte);
  CheckSameIds(*tokenizer, gguf);
}

TEST_CASE("Llama 2's tokenizer.json") {
  EW_EXTERNAL_OR_SKIP(json, "tokenizers/hf/llama2_tokenizer.json");
  EW_EXTERNAL_OR_SKIP(gguf, "tokenizers/ggml-vocab-llama-spm.gguf");
  const auto tokenizer = Make(ParseTokenizerJson(ReadAll(json)));
  CHECK(tokenizer->vocab().kind == TokenizerKind::kSpm);
  CHECK(tokenizer->vocab().bos == 1);
  CHECK(tokenizer->vocab().add_bos);
  CheckSameIds(*tokenizer, gguf);
}

TEST_CASE("Phi-3's tokenizer.json") {
  EW_EXTERNAL_OR_SKIP(json, "tokenizers/hf/phi-3-mini_tokenizer.json");
  EW_EXTERNAL_OR_SKIP(gguf, "tokenizers/ggml-vocab-phi-3.gguf");
  const auto tokenizer = Make(ParseTokenizerJson(ReadAll(json)));
  CheckSameIds(*tokenizer, gguf);
  // The white space after a chat marker belongs to the marker.
  CHECK(*tokenizer->Encode("<|user|>\n Hi<|end|>", {.add_special = false, .parse_special = true}) ==
        std::vector<int32_t>{32010, 6324, 32007});
}

TEST_CASE("a BERT tokenizer.json gives the ids of the GGUF form") {
  EW_EXTERNAL_OR_SKIP(json, "models/potion-base-4M-int8/tokenizer.json");
  EW_EXTERNAL_OR_SKIP(gguf, "tokenizers/ggml-vocab-bert-bge.gguf");
  const auto tokenizer = Make(ParseTokenizerJson(ReadAll(json)));
  const auto bge = Make(VocabOfGguf(gguf));
  CHECK(tokenizer->vocab().cls.has_value());
  // Their vocabularies differ, but common English is in both: compare the pieces.
  for (const std::string text :
       {"The quick brown fox, jumps!", "R\xC3\xA9sum\xC3\xA9 of 3.14 tokenizers", "don't"}) {
    CHECK(DecodeAll(*tokenizer, EncodePlain(*tokenizer, text)) ==
          DecodeAll(*bge, EncodePlain(*bge, text)));
  }
  const auto ids = *tokenizer->Encode("hello");
  REQUIRE(ids.size() == 3);
  CHECK(ids.front() == *tokenizer->vocab().cls);
  CHECK(ids.back() == *tokenizer->vocab().sep);
}

TEST_CASE("a normalizer that no field can express is refused by name") {
  EW_EXTERNAL_OR_SKIP(json, "models/model2vec-vocab-quantized/tokenizer.json");
  const auto vocab = ParseTokenizerJson(ReadAll(json));
  REQUIRE_FALSE(vocab.has_value());
  CHECK(vocab.error().code == Code::kUnsupported);
  CHECK(vocab.error().message.find("BertNormalizer") != std::string::npos);
}

// The prompt of a golden file, and its ids.
void CheckGoldenPrompt(const Tokenizer& tokenizer, const std::string& path) {
  const auto golden = ParseJson(ReadAll(path));
  REQUIRE(golden.has_value());
  std::vector<int32_t> expected;
  for (const Json& id : *golden->Find("token_ids")->AsArray())
    expected.push_back(static_cast<int32_t>(*id.AsInt()));
  const std::string& prompt = *golden->Find("prompt")->AsString();
  const auto ids = tokenizer.Encode(prompt);
  REQUIRE(ids.has_value());
  // The file may go on with generated ids.
  REQUIRE(ids->size() <= expected.size());
  expected.resize(ids->size());
  CHECK(*ids == expected);
  CHECK(DecodeAll(tokenizer, *ids) == prompt);
}

TEST_CASE("our stories tokenizer") {
  const std::string bytes = ReadAll(SourcePath("models/edgewise-stories-3M/tokenizer.model"));
  const auto tokenizer = Make(ParseSentencePieceModel(Bytes(bytes)));
  CHECK(tokenizer->size() == 2048);
  CheckHardTexts(*tokenizer, true);
  CHECK(DecodeAll(*tokenizer, EncodePlain(*tokenizer, "Lily had 12 \xF0\x9F\xA6\x99s.")) ==
        "Lily had 12 \xF0\x9F\xA6\x99s.");
  EW_EXTERNAL_OR_SKIP(golden, "golden/edgewise_stories_3M_logits.json");
  CheckGoldenPrompt(*tokenizer, golden);
}

TEST_CASE("llama2.c's stories tokenizer") {
  EW_EXTERNAL_OR_SKIP(path, "models/stories260K/tok512.bin");
  EW_EXTERNAL_OR_SKIP(golden, "golden/stories260K_logits.json");
  const std::string bytes = ReadAll(path);
  const auto tokenizer = Make(ParseLlama2cTokenizer(Bytes(bytes), 512));
  CheckGoldenPrompt(*tokenizer, golden);
  CheckHardTexts(*tokenizer, true);
  CHECK_FALSE(ParseLlama2cTokenizer(Bytes(bytes), 511).has_value());
  CHECK_FALSE(ParseLlama2cTokenizer(Bytes(bytes), 513).has_value());
}

}  // namespace
}  // namespace edgewise
