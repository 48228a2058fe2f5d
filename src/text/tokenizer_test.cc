#include "text/tokenizer.h"

#include <doctest/doctest.h>

#include <string>
#include <vector>

#include "base/rng.h"
#include "base/strings.h"
#include "text/byte_letters.h"

namespace edgewise {
namespace {

using Ids = std::vector<int32_t>;

std::unique_ptr<Tokenizer> Make(Vocab vocab) {
  auto tokenizer = Tokenizer::Create(std::move(vocab));
  REQUIRE_MESSAGE(tokenizer.has_value(), (tokenizer ? "" : tokenizer.error().message));
  return *std::move(tokenizer);
}

void Add(Vocab* vocab, const std::string& text, TokenType type = TokenType::kNormal,
         float score = 0) {
  vocab->tokens.push_back(text);
  vocab->types.push_back(type);
  vocab->scores.push_back(score);
}

// <unk> <s> </s>, the 256 bytes when asked for, then a few words.
Vocab SpmVocab(bool bytes) {
  Vocab v;
  v.kind = TokenizerKind::kSpm;
  Add(&v, "<unk>", TokenType::kUnknown);
  Add(&v, "<s>", TokenType::kControl);
  Add(&v, "</s>", TokenType::kControl);
  constexpr char kDigits[] = "0123456789ABCDEF";
  for (int i = 0; bytes && i < 256; ++i) {
    Add(&v, std::string("<0x") + kDigits[i / 16] + kDigits[i % 16] + ">", TokenType::kByte);
  }
  for (const char* text : {"\u2581", "a", "b", "c", "<", "s", ">"})
    Add(&v, text, TokenType::kNormal, -100);
  Add(&v, "ab", TokenType::kNormal, -1);
  Add(&v, "bc", TokenType::kNormal, -2);
  Add(&v, "\u2581ab", TokenType::kNormal, -3);
  Add(&v, "<s", TokenType::kNormal, -4);
  Add(&v, "[X]", TokenType::kUserDefined);
  v.unk = 0;
  v.bos = 1;
  v.eos = 2;
  v.add_bos = true;
  return v;
}

std::vector<std::string> Texts(const Tokenizer& tokenizer, const Ids& ids) {
  std::vector<std::string> texts;
  for (const int32_t id : ids) texts.push_back(tokenizer.vocab().tokens[id]);
  return texts;
}

TEST_CASE("SPM merges by score and falls back to bytes") {
  const auto t = Make(SpmVocab(true));
  CHECK(Texts(*t, *t->Encode("abc")) == std::vector<std::string>{"<s>", "\u2581ab", "c"});
  CHECK(Texts(*t, *t->Encode("bc  ab", {.add_special = false})) ==
        std::vector<std::string>{"\u2581", "bc", "\u2581", "\u2581ab"});
  CHECK(Texts(*t, *t->Encode("\u00E9", {.add_special = false})) ==
        std::vector<std::string>{"\u2581", "<0xC3>", "<0xA9>"});
  CHECK(*t->Encode("") == Ids{1});
  CHECK(*t->Decode(*t->Encode(" abc \u00E9\n\xFF")) == " abc \u00E9\n\xFF");
}

TEST_CASE("Vocabularies are compared token by token") {
  const auto t = Make(SpmVocab(true));
  CHECK(CheckSameVocabulary(*t, *Make(SpmVocab(true))));
  const auto message = [&](auto&& change) {
    Vocab vocab = SpmVocab(true);
    change(&vocab);
    const Status status = CheckSameVocabulary(*t, *Make(std::move(vocab)));
    REQUIRE_FALSE(status);
    CHECK(status.error().code == Code::kInvalidArgument);
    return status.error().message;
  };
  const std::string renamed = message([](Vocab* vocab) { vocab->tokens[2] = "</t>"; });
  CHECK(renamed.find("token 2 is \"</s>\" in the first and \"</t>\" in the second; take two "
                     "models of one family") != std::string::npos);
  const std::string longer = message([](Vocab* vocab) { Add(vocab, "more", TokenType::kControl); });
  CHECK(longer.find(Format("the first has %d tokens and the second %d; take two models of one "
                           "family",
                           t->size(), t->size() + 1)) != std::string::npos);
}

TEST_CASE("SPM without bytes says unknown once per run, or fails") {
  const auto t = Make(SpmVocab(false));
  CHECK(Texts(*t, *t->Encode("a\u00E9\u00E9"
                             "b",
                             {.add_special = false})) ==
        std::vector<std::string>{"\u2581", "a", "<unk>", "b"});
  Vocab vocab = SpmVocab(false);
  vocab.unk.reset();
  const auto strict = Make(std::move(vocab));
  const auto ids = strict->Encode("a\u00E9");
  REQUIRE_FALSE(ids.has_value());
  CHECK(ids.error().code == Code::kInvalidArgument);
}

TEST_CASE("SPM without a space prefix") {
  Vocab vocab = SpmVocab(true);
  vocab.add_space_prefix = false;
  const auto t = Make(std::move(vocab));
  CHECK(Texts(*t, *t->Encode("ab ab", {.add_special = false})) ==
        std::vector<std::string>{"ab", "\u2581ab"});
  CHECK(*t->Decode(*t->Encode(" ab")) == " ab");
}

TEST_CASE("control tokens are text unless parsed, user-defined ones never are") {
  const auto t = Make(SpmVocab(true));
  CHECK(Texts(*t, *t->Encode("<s>", {.add_special = false})) ==
        std::vector<std::string>{"\u2581", "<s", ">"});
  CHECK(*t->Encode("<s>", {.add_special = false, .parse_special = true}) == Ids{1});
  CHECK(Texts(*t, *t->Encode("ab[X]ab", {.add_special = false})) ==
        std::vector<std::string>{"\u2581ab", "[X]", "\u2581ab"});
  CHECK(Texts(*t, *t->Encode("</s><unk>", {.add_special = false, .parse_special = true})) ==
        std::vector<std::string>{"</s>", "<unk>"});
}

TEST_CASE("special tokens match longest first and may swallow white space") {
  Vocab vocab = SpmVocab(true);
  const auto base = static_cast<int32_t>(vocab.tokens.size());
  Add(&vocab, "<|a|>", TokenType::kControl);
  Add(&vocab, "<|a|>+", TokenType::kControl);
  vocab.rstrip = {base};
  vocab.lstrip = {base + 1};
  const auto t = Make(std::move(vocab));
  const EncodeOptions special = {.add_special = false, .parse_special = true};
  CHECK(Texts(*t, *t->Encode("<|a|> \n ab", special)) ==
        std::vector<std::string>{"<|a|>", "\u2581ab"});
  CHECK(Texts(*t, *t->Encode("ab \t<|a|>+", special)) ==
        std::vector<std::string>{"\u2581ab", "<|a|>+"});
}

TEST_CASE("decoding keeps or drops control tokens") {
  const auto t = Make(SpmVocab(true));
  const Ids ids = *t->Encode("ab", {});
  CHECK(*t->Decode(ids) == "ab");
  CHECK(*t->Decode(ids, true) == "<s>ab");
  CHECK_FALSE(t->Decode(Ids{-1}).has_value());
  CHECK_FALSE(t->Decode(Ids{t->size()}).has_value());
  CHECK(t->PieceBytes(1).empty());
  CHECK(t->PieceBytes(1, true) == "<s>");
  CHECK(t->IsEndOfGeneration(2));
  CHECK_FALSE(t->IsEndOfGeneration(1));
}

TEST_CASE("the stream decoder never gives half a character") {
  const auto t = Make(SpmVocab(true));
  const auto byte = [&](int value) { return 3 + value; };
  StreamDecoder stream(*t);
  CHECK(stream.Push(byte(0xF0)).empty());
  CHECK(stream.Push(byte(0x9F)).empty());
  CHECK(stream.Push(byte(0xA6)).empty());
  CHECK(stream.Push(byte(0x99)) == "\U0001F999");
  CHECK(stream.Push(*t->Find("\u2581ab")) == " ab");
  CHECK(stream.Push(byte(0xC3)).empty());
  CHECK(stream.Push(*t->Find("a")) ==
        "\uFFFD"
        "a");
  CHECK(stream.Push(byte(0x80)) == "\uFFFD");
  CHECK(stream.Push(byte(0xED)).empty());
  CHECK(stream.Push(byte(0xA0)) == "\uFFFD\uFFFD");  // a surrogate can never become whole
  CHECK(stream.Push(byte(0xE2)).empty());
  CHECK(stream.Finish() == "\uFFFD");
  CHECK(stream.Finish().empty());
}

TEST_CASE("streaming gives the text of decoding at once") {
  const auto t = Make(SpmVocab(true));
  Rng rng(6);
  for (int round = 0; round < 50; ++round) {
    std::string text;
    for (int i = 0; i < 40; ++i) AppendChar(static_cast<uint32_t>(rng.Below(0xD000) + 1), &text);
    StreamDecoder stream(*t);
    std::string streamed;
    const Ids ids = *t->Encode(text);
    for (const int32_t id : ids) streamed += stream.Push(id);
    CHECK(streamed + stream.Finish() == " " + text);
  }
}

// The 256 byte letters, "he", "ll", "hell", and a control token.
Vocab BpeVocab() {
  Vocab v;
  v.kind = TokenizerKind::kBpe;
  v.pre = "gpt-2";
  for (int i = 0; i < 256; ++i) {
    std::string letter;
    AppendByteLetter(static_cast<uint8_t>(i), &letter);
    Add(&v, letter);
  }
  for (const char* text : {"he", "ll", "hell", "whole"}) Add(&v, text);
  Add(&v, "<|end|>", TokenType::kControl);
  v.merges = {"h e", "l l", "he ll"};
  v.scores.clear();
  return v;
}

TEST_CASE("byte-level BPE") {
  const auto t = Make(BpeVocab());
  CHECK(Texts(*t, *t->Encode("hello")) == std::vector<std::string>{"hell", "o"});
  CHECK(t->Encode("whole")->size() == 5);  // no merge leads to the token
  Rng rng(7);
  std::string bytes;
  for (int i = 0; i < 5000; ++i) bytes += static_cast<char>(rng.Below(256));
  CHECK(*t->Decode(*t->Encode(bytes)) == bytes);
}

TEST_CASE("ignore_merges takes a whole pre-token") {
  Vocab vocab = BpeVocab();
  vocab.ignore_merges = true;
  const auto t = Make(std::move(vocab));
  CHECK(Texts(*t, *t->Encode("whole")) == std::vector<std::string>{"whole"});
  CHECK(Texts(*t, *t->Encode("<|end|>")).size() == 7);
}

TEST_CASE("nfc composes before splitting") {
  Vocab vocab = BpeVocab();
  vocab.nfc = true;
  const auto t = Make(std::move(vocab));
  CHECK(*t->Encode("e\u0301") == *t->Encode("\u00E9"));
}

// Both forms of a small BERT vocabulary.
Vocab BertVocab(bool hash_form) {
  Vocab v;
  v.kind = TokenizerKind::kWordPiece;
  Add(&v, "[PAD]", TokenType::kControl);
  Add(&v, "[UNK]", TokenType::kUnknown);
  Add(&v, "[CLS]", TokenType::kControl);
  Add(&v, "[SEP]", TokenType::kControl);
  for (const char* text : {"hello", "un", "resume", "!", "\u4E2D", "a"}) {
    Add(&v, hash_form ? text : std::string("\u2581") + text);
  }
  for (const char* text : {"able", "s"}) Add(&v, hash_form ? std::string("##") + text : text);
  v.unk = 1;
  v.cls = 2;
  v.sep = 3;
  v.add_bos = v.add_eos = true;
  return v;
}

TEST_CASE("WordPiece in both forms") {
  for (const bool hash_form : {true, false}) {
    const auto t = Make(BertVocab(hash_form));
    CHECK(*t->Encode("Hello") == Ids{2, 4, 3});
    CHECK(*t->Encode("UNABLE!", {.add_special = false}) == Ids{5, 10, 7});
    CHECK(*t->Encode("r\u00E9sum\u00E9s", {.add_special = false}) == Ids{6, 11});
    CHECK(*t->Encode("a\u4E2D"
                     "a xyz xyz",
                     {.add_special = false}) == Ids{9, 8, 9, 1, 1});
    CHECK(*t->Encode("he\u200Bllo\x01", {.add_special = false}) == Ids{4});
    CHECK(*t->Encode(std::string(101, 'a'), {.add_special = false}) == Ids{1});
    CHECK(t->Encode(" \t\n", {.add_special = false})->empty());
    CHECK(*t->Decode(*t->Encode("unable hello !")) == "unable hello !");
  }
}

TEST_CASE("WordPiece keeps case and accents where asked") {
  Vocab vocab = BertVocab(true);
  vocab.lowercase = vocab.strip_accents = false;
  const auto t = Make(std::move(vocab));
  CHECK(*t->Encode("Hello hello", {.add_special = false}) == Ids{1, 4});
}

Vocab UnigramVocab() {
  Vocab v;
  v.kind = TokenizerKind::kUnigram;
  Add(&v, "<unk>", TokenType::kUnknown);
  Add(&v, "</s>", TokenType::kControl);
  Add(&v, "\u2581", TokenType::kNormal, -3);
  Add(&v, "a", TokenType::kNormal, -4);
  Add(&v, "b", TokenType::kNormal, -4);
  Add(&v, "ab", TokenType::kNormal, -5);
  Add(&v, "\u2581a", TokenType::kNormal, -5);
  Add(&v, "bab", TokenType::kNormal, -6);
  v.unk = 0;
  v.eos = 1;
  v.add_eos = true;
  return v;
}

TEST_CASE("Unigram finds the best total score") {
  const auto t = Make(UnigramVocab());
  CHECK(Texts(*t, *t->Encode("abab")) == std::vector<std::string>{"\u2581a", "bab", "</s>"});
  CHECK(Texts(*t, *t->Encode("a\u00E9\u00E9"
                             "b",
                             {.add_special = false})) ==
        std::vector<std::string>{"\u2581a", "<unk>", "b"});
  CHECK(*t->Decode(*t->Encode("ab  ba ")) == "ab  ba ");
}

TEST_CASE("Unigram merges spaces where asked") {
  Vocab vocab = UnigramVocab();
  vocab.remove_extra_whitespaces = true;
  const auto t = Make(std::move(vocab));
  CHECK(*t->Encode("  a   b ") == *t->Encode("a b"));
  CHECK(t->Encode("   ", {.add_special = false})->empty());
}

// A double-array trie with one key, "A", for the replacement "a".
std::string OneKeyCharsmap() {
  // Root at 0 with offset 0x100; "A" at 0x141 with a value, offset 1 ^ ...; the value unit at 0x141
  // ^ 2.
  std::vector<uint32_t> units(0x200);
  units[0] = 0x100u << 10;
  units[0x141] = 'A' | 1u << 8 | 2u << 10;
  units[0x143] = 1u << 31 | 0;
  std::string bytes;
  const auto put = [&](uint32_t value) {
    for (int i = 0; i < 4; ++i) bytes += static_cast<char>(value >> (8 * i) & 0xFF);
  };
  put(static_cast<uint32_t>(units.size() * 4));
  for (const uint32_t unit : units) put(unit);
  return bytes + std::string("a\0", 2);
}

TEST_CASE("Unigram applies the precompiled table") {
  Vocab vocab = UnigramVocab();
  vocab.precompiled_charsmap = OneKeyCharsmap();
  const auto t = Make(std::move(vocab));
  CHECK(*t->Encode("Ab") == *t->Encode("ab"));
  for (const size_t length : {size_t{1}, size_t{3}, size_t{100}}) {
    Vocab cut = UnigramVocab();
    cut.precompiled_charsmap = OneKeyCharsmap().substr(0, length);
    const auto broken = Tokenizer::Create(std::move(cut));
    REQUIRE_FALSE(broken.has_value());
    CHECK(broken.error().code == Code::kBadData);
  }
}

TEST_CASE("broken vocabularies are refused") {
  const auto code = [](Vocab vocab) {
    const auto tokenizer = Tokenizer::Create(std::move(vocab));
    REQUIRE_FALSE(tokenizer.has_value());
    return tokenizer.error().code;
  };
  CHECK(code(Vocab{}) == Code::kBadData);
  Vocab v = SpmVocab(true);
  v.types.pop_back();
  CHECK(code(v) == Code::kBadData);
  v = SpmVocab(true);
  v.scores.pop_back();
  CHECK(code(v) == Code::kBadData);
  v = SpmVocab(true);
  v.eos = 100000;
  CHECK(code(v) == Code::kBadData);
  v = SpmVocab(true);
  v.bos.reset();
  CHECK(code(v) == Code::kBadData);
  v = SpmVocab(true);
  v.tokens[5] = "no byte";
  CHECK(code(v) == Code::kBadData);
  v = SpmVocab(true);
  v.types[0] = static_cast<TokenType>(9);
  CHECK(code(v) == Code::kBadData);
  v = BpeVocab();
  v.merges.push_back("h e");
  CHECK(code(v) == Code::kBadData);
  v = BpeVocab();
  v.merges.push_back("x y");
  CHECK(code(v) == Code::kBadData);
  v = BpeVocab();
  v.pre = "no-such";
  CHECK(code(v) == Code::kUnsupported);
  v = BertVocab(true);
  v.unk.reset();
  CHECK(code(v) == Code::kBadData);
}

TEST_CASE("end-of-generation tokens are found by their text") {
  Vocab v = BpeVocab();
  CHECK(FindEndOfGeneration(v) == Ids{260});
  v.eos = 3;
  CHECK(FindEndOfGeneration(v) == Ids{3, 260});
}

}  // namespace
}  // namespace edgewise
