#include "text/tokenizer_files.h"

#include <doctest/doctest.h>

#include <cstring>
#include <string>
#include <vector>

#include "base/file.h"
#include "tests/test_data.h"
#include "text/base64.h"

namespace edgewise {
namespace {

using Ids = std::vector<int32_t>;

std::span<const std::byte> Bytes(const std::string& text) { return std::as_bytes(std::span(text)); }

Vocab Good(Result<Vocab> vocab) {
  REQUIRE_MESSAGE(vocab.has_value(), (vocab ? "" : vocab.error().message));
  return *std::move(vocab);
}

TEST_CASE("base64") {
  CHECK(*DecodeBase64("") == "");
  CHECK(*DecodeBase64("YQ==") == "a");
  CHECK(*DecodeBase64("YWI=") == "ab");
  CHECK(*DecodeBase64("YWJj") == "abc");
  CHECK(*DecodeBase64("/+8=") == "\xFF\xEF");
  for (const char* bad : {"YQ", "Y===", "Y Q=", "=YQ=", "YQ=a"})
    CHECK_FALSE(DecodeBase64(bad).has_value());
}

// Protobuf, written by hand.
std::string Varint(uint64_t value) {
  std::string out;
  for (; value >= 0x80; value >>= 7) out += static_cast<char>(value | 0x80);
  return out + static_cast<char>(value);
}
std::string Number(uint32_t id, uint64_t value) { return Varint(id << 3) + Varint(value); }
std::string Block(uint32_t id, const std::string& bytes) {
  return Varint(id << 3 | 2) + Varint(bytes.size()) + bytes;
}
std::string Piece(const std::string& text, float score, uint64_t type) {
  std::string bits(4, '\0');
  std::memcpy(bits.data(), &score, 4);
  return Block(1, Block(1, text) + Varint(2 << 3 | 5) + bits + Number(3, type));
}

std::string SmallModel(uint64_t model_type) {
  return Piece("<unk>", 0, 2) + Piece("<s>", 0, 3) + Piece("</s>", 0, 3) + Piece("\u2581", -3, 1) +
         Piece("a", -4, 1) + Piece("\u2581a", -1, 1) + Piece("\u2581x", 0, 4) +
         Block(2, Number(3, model_type) + Number(43, ~uint64_t{0})) +
         Block(3, Number(3, 1) + Number(4, 1));
}

TEST_CASE("a SentencePiece BPE model") {
  const std::string bytes = SmallModel(2);
  const Vocab v = Good(ParseSentencePieceModel(Bytes(bytes)));
  CHECK(v.kind == TokenizerKind::kSpm);
  CHECK(v.unk == 0);
  CHECK(v.bos == 1);
  CHECK(v.eos == 2);
  CHECK_FALSE(v.pad.has_value());
  CHECK(v.add_bos);
  CHECK(v.eog == Ids{2});
  CHECK(v.scores[5] == -1);
  CHECK(v.tokens[6] == " x");  // user-defined: as in the text
  CHECK_FALSE(v.remove_extra_whitespaces);
}

TEST_CASE("a SentencePiece Unigram model") {
  const std::string bytes = SmallModel(1);
  const Vocab v = Good(ParseSentencePieceModel(Bytes(bytes)));
  CHECK(v.kind == TokenizerKind::kUnigram);
  CHECK(v.add_eos);
  CHECK(v.remove_extra_whitespaces);
}

TEST_CASE("SentencePiece models of other kinds are refused") {
  CHECK(ParseSentencePieceModel(Bytes(SmallModel(3))).error().code == Code::kUnsupported);
  const std::string table = SmallModel(2) + Block(3, Block(2, "x"));
  CHECK(ParseSentencePieceModel(Bytes(table)).error().code == Code::kUnsupported);
  CHECK(ParseSentencePieceModel({}).error().code == Code::kBadData);
  const std::string eos = SmallModel(2) + Block(2, Number(42, 99));
  CHECK(ParseSentencePieceModel(Bytes(eos)).error().code == Code::kBadData);
}

TEST_CASE("a SentencePiece model cut anywhere gives an error or fewer pieces, never a crash") {
  auto model = ReadFile(SourcePath("models/edgewise-stories-3M/tokenizer.model"), 1 << 20);
  REQUIRE(model.has_value());
  int refused = 0;
  for (size_t length = 0; length < 600; ++length) {
    refused += !ParseSentencePieceModel(Bytes(model->substr(0, length))).has_value();
  }
  CHECK(refused > 500);
  CHECK(Good(ParseSentencePieceModel(Bytes(*model))).tokens.size() == 2048);
}

std::string Llama2cToken(const std::string& text, float score) {
  std::string out(8, '\0');
  const auto length = static_cast<uint32_t>(text.size());
  std::memcpy(out.data(), &score, 4);
  std::memcpy(out.data() + 4, &length, 4);
  return out + text;
}

TEST_CASE("llama2.c tokenizers") {
  const std::string bytes = std::string("\x07\0\0\0", 4) + Llama2cToken("<unk>", 0) +
                            Llama2cToken("\n<s>\n", 0) + Llama2cToken("\n</s>\n", 0) +
                            Llama2cToken("<0x00>", 0) + Llama2cToken(" a", -1);
  const Vocab v = Good(ParseLlama2cTokenizer(Bytes(bytes), 5));
  CHECK(v.tokens == std::vector<std::string>{"<unk>", "<s>", "</s>", "<0x00>",
                                             "\u2581"
                                             "a"});
  CHECK(v.types[0] == TokenType::kUnknown);
  CHECK(v.types[2] == TokenType::kControl);
  CHECK(v.types[3] == TokenType::kByte);
  CHECK(v.scores[4] == -1);
  for (size_t length = 0; length < bytes.size(); ++length) {
    CHECK_FALSE(ParseLlama2cTokenizer(Bytes(bytes.substr(0, length)), 5).has_value());
  }
  CHECK_FALSE(ParseLlama2cTokenizer(Bytes(bytes), 4).has_value());
  CHECK_FALSE(ParseLlama2cTokenizer(Bytes(bytes), 1u << 31).has_value());
}

TEST_CASE("tiktoken ranks give merges") {
  // a b c ab abc, but not "bc": abc is ab + c.
  const Vocab v = Good(ParseTiktokenRanks("YQ== 0\nYg== 1\nYw== 2\nYWI= 3\nYWJj 4\n"));
  CHECK(v.merges == std::vector<std::string>{"a b", "ab c"});
  CHECK(v.tokens.size() == 5 + 256);
  CHECK(v.bos == 5);
  CHECK(v.types[5] == TokenType::kControl);
  for (const char* bad :
       {"", "YQ==", "YQ== 1\n", "YQ== x\n", "Y 0\n", "YQ== 0\nYQ== 1\n", "YWI= 0\n", " 0\n"}) {
    CAPTURE(bad);
    CHECK_FALSE(ParseTiktokenRanks(bad).has_value());
  }
}

constexpr const char* kLlamaStyle = R"({
  "added_tokens": [{"id": 0, "content": "<unk>", "special": true}, {"id": 1, "content": "<s>", "special": true},
                   {"id": 7, "content": "<x>", "special": false, "rstrip": true}],
  "normalizer": {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"},
    {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]},
  "pre_tokenizer": null,
  "post_processor": {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}},
    {"Sequence": {"id": "A", "type_id": 0}}], "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}}},
  "model": {"type": "BPE", "unk_token": "<unk>", "byte_fallback": true,
            "vocab": {"<unk>": 0, "<s>": 1, "<0x41>": 2, "▁": 3, "a": 4, "▁a": 5},
            "merges": ["▁ a"]}})";

TEST_CASE("a byte-fallback tokenizer.json") {
  const Vocab v = Good(ParseTokenizerJson(kLlamaStyle));
  CHECK(v.kind == TokenizerKind::kSpm);
  CHECK(v.add_space_prefix);
  CHECK(v.add_bos);
  CHECK(v.bos == 1);
  CHECK(v.types[0] == TokenType::kUnknown);
  CHECK(v.types[2] == TokenType::kByte);
  CHECK(v.tokens[6] == "[PAD6]");
  CHECK(v.types[6] == TokenType::kUnused);
  CHECK(v.types[7] == TokenType::kUserDefined);
  CHECK(v.rstrip == Ids{7});
  CHECK(v.scores[5] == 0);
  CHECK(v.scores[4] < 0);
  const auto tokenizer = Tokenizer::Create(v);
  REQUIRE(tokenizer.has_value());
  CHECK(*(*tokenizer)->Encode("a A") == Ids{1, 5, 3, 2});
}

// A byte-level tokenizer.json with this pre-tokenizer and normalizer.
std::string ByteLevel(const std::string& pre_tokenizer, const std::string& normalizer = "null") {
  return R"({"normalizer": )" + normalizer + R"(, "pre_tokenizer": )" + pre_tokenizer +
         R"(, "post_processor": {"type": "ByteLevel", "trim_offsets": true}, "decoder": {"type": "ByteLevel"},
             "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": [["a", "b"]]}})";
}

std::string ByteLevelStep(bool regex) {
  return std::string(R"({"type": "ByteLevel", "add_prefix_space": false, "use_regex": )") +
         (regex ? "true}" : "false}");
}

std::string RegexSplit(const std::string& pattern) {
  return R"({"type": "Split", "pattern": {"Regex": )" + Json(pattern).Dump() +
         R"(}, "behavior": "Isolated", "invert": false})";
}

std::string Sequence(const std::string& steps) {
  return R"({"type": "Sequence", "pretokenizers": [)" + steps + "]}";
}

TEST_CASE("byte-level pre-tokenizers are recognised by their patterns") {
  const std::string llama3 =
      R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
  const std::string qwen2 =
      R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
  const auto pre = [](const std::string& steps) {
    return Good(ParseTokenizerJson(ByteLevel(steps))).pre;
  };
  CHECK(pre(ByteLevelStep(true)) == "gpt-2");
  CHECK(pre(Sequence(RegexSplit(llama3) + "," + ByteLevelStep(false))) == "llama-bpe");
  CHECK(pre(Sequence(RegexSplit(qwen2) + "," + ByteLevelStep(false))) == "qwen2");
  CHECK(pre(Sequence(R"({"type": "Digits", "individual_digits": true},)" + ByteLevelStep(true))) ==
        "starcoder");
  CHECK(pre(Sequence(R"({"type": "Punctuation", "behavior": "Contiguous"},)" + ByteLevelStep(true) +
                     R"(,{"type": "Digits", "individual_digits": false},)" +
                     RegexSplit("[0-9][0-9][0-9]"))) == "falcon");
  CHECK(pre(Sequence(RegexSplit("[\r\n]") + "," + RegexSplit(R"(\s?\p{L}+)") + "," +
                     RegexSplit(R"(\s?\p{P}+)") + "," +
                     RegexSplit("[\u4E00-\u9FA5\u0800-\u4E00\uAC00-\uD7FF]+") +
                     R"(,{"type": "Digits", "individual_digits": true},)" +
                     ByteLevelStep(false))) == "deepseek-coder");

  const auto unknown =
      ParseTokenizerJson(ByteLevel(Sequence(RegexSplit("x+") + "," + ByteLevelStep(false))));
  REQUIRE_FALSE(unknown.has_value());
  CHECK(unknown.error().code == Code::kUnsupported);
  CHECK(unknown.error().message.find("x+") != std::string::npos);

  const Vocab nfc = Good(ParseTokenizerJson(ByteLevel(ByteLevelStep(true), R"({"type": "NFC"})")));
  CHECK(nfc.nfc);
  CHECK(nfc.merges == std::vector<std::string>{"a b"});
  CHECK_FALSE(
      ParseTokenizerJson(ByteLevel(ByteLevelStep(true), R"({"type": "Lowercase"})")).has_value());
}

TEST_CASE("a Unigram tokenizer.json") {
  const std::string json = R"({"added_tokens": [{"id": 1, "content": "</s>", "special": true}],
    "normalizer": {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": "▁"},
    "pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always"},
    "post_processor": {"type": "TemplateProcessing", "single": [{"Sequence": {"id": "A"}}, {"SpecialToken": {"id": "</s>"}}],
      "special_tokens": {"</s>": {"ids": [1]}}},
    "model": {"type": "Unigram", "unk_id": 0, "vocab": [["<unk>", 0], ["</s>", 0], ["▁a", -1.5], ["b", -2]]}})";
  const Vocab v = Good(ParseTokenizerJson(json));
  CHECK(v.kind == TokenizerKind::kUnigram);
  CHECK(v.scores[2] == -1.5F);
  CHECK(v.remove_extra_whitespaces);
  CHECK(v.add_space_prefix);
  CHECK(v.add_eos);
  CHECK_FALSE(v.add_bos);
  const auto tokenizer = Tokenizer::Create(v);
  REQUIRE(tokenizer.has_value());
  CHECK(*(*tokenizer)->Encode("ab") == Ids{2, 3, 1});
}

TEST_CASE("a WordPiece tokenizer.json") {
  const auto json = [](const char* normalizer) {
    return std::string(R"({"normalizer": )") + normalizer +
           R"(, "pre_tokenizer": {"type": "BertPreTokenizer"},
      "added_tokens": [{"id": 0, "content": "[UNK]", "special": true}],
      "post_processor": {"type": "BertProcessing", "sep": ["[SEP]", 2], "cls": ["[CLS]", 1]},
      "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##", "max_input_chars_per_word": 100,
                "vocab": {"[UNK]": 0, "[CLS]": 1, "[SEP]": 2, "A": 3, "##b": 4}}})";
  };
  const Vocab v = Good(ParseTokenizerJson(
      json(R"({"type": "BertNormalizer", "lowercase": false, "strip_accents": null})")));
  CHECK(v.kind == TokenizerKind::kWordPiece);
  CHECK_FALSE(v.lowercase);
  CHECK_FALSE(v.strip_accents);
  CHECK(v.cls == 1);
  CHECK(v.sep == 2);
  const auto tokenizer = Tokenizer::Create(v);
  REQUIRE(tokenizer.has_value());
  CHECK(*(*tokenizer)->Encode("Ab") == Ids{1, 3, 4, 2});
  CHECK(ParseTokenizerJson(json("null")).error().code == Code::kUnsupported);
}

TEST_CASE("broken tokenizer.json files") {
  for (const char* bad : {"", "[]", "{}", R"({"model": 1})", R"({"model": {"type": "BPE"}})",
                          R"({"model": {"type": "BPE", "vocab": []}})",
                          R"({"model": {"type": "BPE", "vocab": {"a": -1}, "merges": []}})",
                          R"({"model": {"type": "BPE", "vocab": {"a": 4000000000}, "merges": []}})",
                          R"({"model": {"type": "BPE", "vocab": {"a": 0, "b": 0}, "merges": []}})",
                          R"({"model": {"type": "BPE", "vocab": {"a": 0}, "merges": ["a"]}})",
                          R"({"model": {"type": "WordLevel", "vocab": {"a": 0}}})",
                          R"({"model": {"type": "Unigram", "vocab": [["a"]]}})",
                          R"({"model": {"type": "Unigram", "unk_id": 7, "vocab": [["a", 0]]}})"}) {
    CAPTURE(bad);
    CHECK_FALSE(ParseTokenizerJson(bad).has_value());
  }
}

TEST_CASE("tokenizer_config.json") {
  Vocab v = Good(ParseTokenizerJson(kLlamaStyle));
  CHECK(ApplyTokenizerConfig(Json(), &v).has_value());
  const auto config =
      ParseJson(R"({"bos_token": {"content": "<s>"}, "eos_token": "</end>", "pad_token": null,
    "add_bos_token": false, "chat_template": [{"name": "tools", "template": "T"}, {"name": "default", "template": "D"}],
    "added_tokens_decoder": {"8": {"content": "</end>", "special": true}}})");
  REQUIRE(config.has_value());
  REQUIRE(ApplyTokenizerConfig(*config, &v).has_value());
  CHECK(v.tokens[8] == "</end>");
  CHECK(v.types[8] == TokenType::kControl);
  CHECK(v.eos == 8);
  CHECK(v.eog == Ids{8});
  CHECK_FALSE(v.add_bos);
  CHECK(v.chat_template == "D");
  CHECK(Tokenizer::Create(v).has_value());
  for (const char* bad :
       {"[]", R"({"eos_token": "<none>"})", R"({"add_bos_token": 1})", R"({"chat_template": 3})",
        R"({"added_tokens_decoder": {"100": {"content": "x"}}})"}) {
    CAPTURE(bad);
    CHECK_FALSE(ApplyTokenizerConfig(*ParseJson(bad), &v).has_value());
  }
}

}  // namespace
}  // namespace edgewise
