#include "engine/text_emitter.h"

#include <doctest/doctest.h>

#include <memory>

#include "base/rng.h"
#include "base/strings.h"

namespace edgewise {
namespace {

// Ids 3..258 are the bytes, then some pieces, then a control token.
std::unique_ptr<Tokenizer> ByteTokenizer(const std::vector<std::string>& pieces) {
  Vocab vocab;
  vocab.tokens = {"<unk>", "<s>", "</s>"};
  vocab.types = {TokenType::kUnknown, TokenType::kControl, TokenType::kControl};
  for (int byte = 0; byte < 256; ++byte) {
    vocab.tokens.push_back(Format("<0x%02X>", static_cast<unsigned>(byte)));
    vocab.types.push_back(TokenType::kByte);
  }
  for (const std::string& piece : pieces) {
    vocab.tokens.push_back(piece);
    vocab.types.push_back(TokenType::kNormal);
  }
  vocab.scores.assign(vocab.tokens.size(), 0.0f);
  vocab.unk = 0, vocab.bos = 1, vocab.eos = 2, vocab.eog = {2};
  vocab.add_bos = true;
  auto tokenizer = Tokenizer::Create(std::move(vocab));
  REQUIRE(tokenizer);
  return *std::move(tokenizer);
}

int32_t Byte(char c) { return 3 + static_cast<uint8_t>(c); }

struct Emitted {
  std::string text;
  std::vector<std::string> parts;
  bool stopped = false;
};

Emitted Emit(const Tokenizer& tokenizer, const std::vector<int32_t>& before,
             const std::vector<int32_t>& ids, const std::vector<std::string>& stop) {
  Emitted result;
  const std::function<bool(std::string_view)> on_text = [&](std::string_view part) {
    result.parts.emplace_back(part);
    return true;
  };
  TextEmitter emitter(tokenizer, before, &stop, &on_text);
  for (const int32_t id : ids) {
    if (emitter.Push(id) != TextEmitter::Outcome::kStopString) continue;
    result.stopped = true;
    break;
  }
  if (!result.stopped) result.stopped = emitter.Finish() == TextEmitter::Outcome::kStopString;
  result.text = emitter.text();
  CHECK(Join(result.parts, "") == result.text);
  for (const std::string& part : result.parts) {
    CHECK(IsUtf8(part));
    CHECK(!part.empty());
  }
  return result;
}

std::vector<int32_t> Bytes(std::string_view text) {
  std::vector<int32_t> ids;
  for (const char c : text) ids.push_back(Byte(c));
  return ids;
}

TEST_CASE("Characters of several byte tokens come out whole") {
  const auto tokenizer = ByteTokenizer({});
  const Emitted e = Emit(*tokenizer, {1, Byte('a')}, Bytes("x\u00e9\u20ac\U0001F600!"), {});
  CHECK(e.text == "x\u00e9\u20ac\U0001F600!");
  CHECK(e.parts == std::vector<std::string>{"x", "\u00e9", "\u20ac", "\U0001F600", "!"});
  // Ill-formed bytes are shown, the end of an unfinished character too.
  CHECK(Emit(*tokenizer, {1, Byte('a')},
             Bytes("a\xff"
                   "b\xe2\x82"),
             {})
            .text == "a\uFFFDb\uFFFD");
}

TEST_CASE("A character that the prompt left unfinished is finished") {
  const auto tokenizer = ByteTokenizer({});
  CHECK(Emit(*tokenizer, {1, Byte('\xe2'), Byte('\x82')}, Bytes("\xac!"), {}).text == "\u20ac!");
}

TEST_CASE("The space before a text is taken away only at its start") {
  const auto tokenizer = ByteTokenizer({"\u2581Once", "\u2581upon"});
  CHECK(Emit(*tokenizer, {1}, {259, 260}, {}).text == "Once upon");
  CHECK(Emit(*tokenizer, {1, 259}, {260, 259}, {}).text == " upon Once");
  CHECK(Emit(*tokenizer, {}, {259}, {}).text == "Once");
}

TEST_CASE("A stop string ends the text wherever tokens cut it, and no part of it is emitted") {
  const auto tokenizer = ByteTokenizer({"stop", "st", "op", "\u2581the"});
  const std::vector<int32_t> before = {1, Byte('>')};
  std::vector<int32_t> ids = Bytes("go ");
  ids.insert(ids.end(), {260, 261, Byte('!')});  // st op !
  for (const auto& [stop, text] :
       std::vector<std::pair<std::string, std::string>>{{"stop", "go "},
                                                        {"top", "go s"},
                                                        {"p!", "go sto"},
                                                        {"go", ""},
                                                        {"o st", "g"},
                                                        {"!", "go stop"}}) {
    const Emitted e = Emit(*tokenizer, before, ids, {stop});
    INFO(stop);
    CHECK(e.stopped);
    CHECK(e.text == text);
  }
  const Emitted first = Emit(*tokenizer, before, ids, {"zzz", "top", "o st"});
  CHECK(first.text == "g");
  CHECK(Emit(*tokenizer, before, Bytes("ststop"), {"stop"}).text == "st");
}

TEST_CASE("What only looked like a stop string is emitted in the end") {
  const auto tokenizer = ByteTokenizer({});
  const Emitted e = Emit(*tokenizer, {1, Byte('>')}, Bytes("a stoa sto"), {"stop", "stoat"});
  CHECK(!e.stopped);
  CHECK(e.text == "a stoa sto");
}

TEST_CASE("Any text, cut into tokens anyhow, ends at the first stop string") {
  const auto tokenizer = ByteTokenizer({"aa", "ab", "ba", "bb", "aab", "abba"});
  const std::vector<std::string> pieces = {"aa", "ab", "ba", "bb", "aab", "abba", "a", "b"};
  Rng rng(5);
  for (int round = 0; round < 500; ++round) {
    std::vector<int32_t> ids;
    std::string text;
    for (int i = 0; i < 12; ++i) {
      const size_t pick = rng.Below(pieces.size());
      text += pieces[pick];
      ids.push_back(pick < 6 ? static_cast<int32_t>(259 + pick) : Byte(pieces[pick][0]));
    }
    std::vector<std::string> stops;
    for (uint64_t i = 0; i < 1 + rng.Below(3); ++i) {
      std::string stop;
      for (uint64_t j = 0; j < 1 + rng.Below(6); ++j) stop += rng.Below(2) == 0 ? 'a' : 'b';
      stops.push_back(stop);
    }
    // The reference sees tokens one by one too, because a later token may complete an earlier stop
    // string.
    std::string seen;
    size_t end = std::string::npos;
    for (size_t i = 0; i < ids.size() && end == std::string::npos; ++i) {
      seen += tokenizer->PieceBytes(ids[i]);
      for (const std::string& stop : stops) end = std::min(end, seen.find(stop));
    }
    const Emitted e = Emit(*tokenizer, {1, Byte('>')}, ids, stops);
    CHECK(e.stopped == (end != std::string::npos));
    CHECK(e.text == text.substr(0, end));
  }
}

TEST_CASE("Stop strings must be text") {
  CHECK(TextEmitter::CheckStops({"a", "\n\n", "\u20ac"}));
  CHECK(TextEmitter::CheckStops({""}).error().code == Code::kInvalidArgument);
  CHECK(TextEmitter::CheckStops({"a", "\xe2\x82"}).error().code == Code::kInvalidArgument);
}

TEST_CASE("The reader can cancel") {
  const auto tokenizer = ByteTokenizer({});
  const std::vector<std::string> stop;
  const std::function<bool(std::string_view)> on_text = [](std::string_view part) {
    return part != "b";
  };
  TextEmitter emitter(*tokenizer, std::vector<int32_t>{1}, &stop, &on_text);
  CHECK(emitter.Push(Byte('a')) == TextEmitter::Outcome::kContinue);
  CHECK(emitter.Push(Byte('b')) == TextEmitter::Outcome::kCancelled);
}

}  // namespace
}  // namespace edgewise
