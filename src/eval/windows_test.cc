#include "eval/windows.h"

#include <doctest/doctest.h>

#include <memory>

namespace edgewise {
namespace {

// One token per byte, so that windows can be counted by hand; BOS is 1.
std::unique_ptr<Tokenizer> Letters(bool add_bos = true) {
  Vocab vocab;
  vocab.tokens = {"<unk>", "<s>", "</s>"};
  vocab.types = {TokenType::kUnknown, TokenType::kControl, TokenType::kControl};
  for (int byte = 0; byte < 256; ++byte) {
    static constexpr char kHex[] = "0123456789ABCDEF";
    vocab.tokens.push_back(std::string("<0x") + kHex[byte / 16] + kHex[byte % 16] + ">");
    vocab.types.push_back(TokenType::kByte);
  }
  vocab.scores.assign(vocab.tokens.size(), 0.0f);
  vocab.unk = 0, vocab.bos = 1, vocab.eos = 2, vocab.eog = {2};
  vocab.add_bos = add_bos;
  vocab.add_eos = true;  // must not put an end into the text
  vocab.add_space_prefix = false;
  auto tokenizer = Tokenizer::Create(std::move(vocab));
  REQUIRE(tokenizer);
  return *std::move(tokenizer);
}

TextOptions Options(TextConvention convention, uint32_t context) {
  TextOptions options;
  options.convention = convention;
  options.context = context;
  return options;
}

ScoredText Cut(std::string_view text, const TextOptions& options, uint32_t trained = 64,
               bool add_bos = true) {
  auto scored = CutText(*Letters(add_bos), trained, text, options);
  REQUIRE_MESSAGE(scored.has_value(), (scored ? "" : scored.error().message));
  return *std::move(scored);
}

std::vector<int32_t> Ids(std::string_view text) {
  std::vector<int32_t> ids;
  for (const char c : text) ids.push_back(3 + static_cast<uint8_t>(c));
  return ids;
}

std::vector<int32_t> WithBos(std::string_view text) {
  std::vector<int32_t> ids = Ids(text);
  ids.insert(ids.begin(), 1);
  return ids;
}

TEST_CASE("Convention A: disjoint windows, BOS once, every position but the first scored") {
  const ScoredText scored = Cut("abcdefghij", Options(TextConvention::kWhole, 4));
  REQUIRE(scored.windows.size() == 2);
  CHECK(scored.windows[0].tokens == WithBos("abc"));
  CHECK(scored.windows[1].tokens == Ids("defg"));
  CHECK(scored.windows[1].first_target == 1);
  CHECK(scored.tokens == 6);
  CHECK(scored.unused_tokens == 3);
  CHECK(scored.convention == "A");
  CHECK(scored.context == 4);
  CHECK(Cut("abcdefghij", Options(TextConvention::kWhole, 4), 64, false).windows[0].tokens ==
        Ids("abcd"));
}

TEST_CASE("Convention C: BOS replaces the first token of each window, second halves scored") {
  const ScoredText scored = Cut("abcdefghijklmnopqr", Options(TextConvention::kLlamaCpp, 8));
  REQUIRE(scored.windows.size() == 2);
  CHECK(scored.windows[0].tokens == WithBos("abcdefg"));
  CHECK(scored.windows[1].tokens == WithBos("ijklmno"));
  // llama-perplexity scores the predictions made at positions 4, 5 and 6.
  CHECK(scored.windows[0].first_target == 5);
  CHECK(scored.windows[0].targets() == 3);
  CHECK(scored.tokens == 6);
  CHECK(scored.unused_tokens == 3);
  const ScoredText plain =
      Cut("abcdefghijklmnopqr", Options(TextConvention::kLlamaCpp, 8), 64, false);
  CHECK(plain.windows[1].tokens == Ids("ijklmnop"));
}

TEST_CASE("Documents: trimmed, short ones left out, each from BOS, cut at the context") {
  TextOptions options = Options(TextConvention::kDocuments, 6);
  options.separator = "##";
  options.skip_bytes = 2;
  const ScoredText scored = Cut(" \nabc \n##xy##\n\n##abcdefghi##last", options);
  REQUIRE(scored.windows.size() == 3);
  CHECK(scored.windows[0].tokens == WithBos("abc"));
  CHECK(scored.windows[1].tokens == WithBos("abcde"));
  CHECK(scored.windows[2].tokens == WithBos("last"));
  CHECK(scored.skipped_documents == 1);
  CHECK(scored.unused_tokens == 4);
  CHECK(scored.tokens == 3 + 5 + 4);
  options.max_bytes = 24;  // inside "abcdefghi": that piece is cut, so it is dropped
  CHECK(Cut(" \nabc \n##xy##\n\n##abcdefghi##last", options).windows.size() == 1);
  options.max_bytes = 0;
  options.max_windows = 2;
  CHECK(Cut(" \nabc \n##xy##\n\n##abcdefghi##last", options).windows.size() == 2);
}

TEST_CASE("A byte limit does not cut a character") {
  TextOptions options = Options(TextConvention::kWhole, 2);
  for (const auto& [limit, used] : std::vector<std::pair<uint64_t, uint64_t>>{
           {2, 2}, {3, 2}, {4, 2}, {5, 5}, {6, 5}, {7, 5}, {8, 5}, {9, 9}, {0, 10}, {50, 10}}) {
    options.max_bytes = limit;
    CHECK(Cut("ab\u20ac\U0001F600c", options).text_bytes == used);
  }
}

TEST_CASE("The usual contexts, at most the trained one") {
  const std::string text(5000, 'x');
  CHECK(Cut(text, Options(TextConvention::kWhole, 0), 4096).context == 2048);
  CHECK(Cut(text, Options(TextConvention::kLlamaCpp, 0), 4096).context == 512);
  CHECK(Cut(text, Options(TextConvention::kLlamaCpp, 0), 256).context == 256);
  CHECK(Cut(text, Options(TextConvention::kDocuments, 0), 1000).context == 1000);
}

TEST_CASE("What cannot be scored is an error") {
  const auto tokenizer = Letters();
  const auto refused = [&](std::string_view text, const TextOptions& options) {
    const auto scored = CutText(*tokenizer, 64, text, options);
    REQUIRE(!scored);
    CHECK(scored.error().code == Code::kInvalidArgument);
    return scored.error().message;
  };
  CHECK(refused("abc", Options(TextConvention::kWhole, 8)).find("4 tokens") != std::string::npos);
  CHECK(refused("abc", Options(TextConvention::kWhole, 65)).find("64") != std::string::npos);
  refused("abcdef", Options(TextConvention::kLlamaCpp, 3));
  refused("", Options(TextConvention::kWhole, 4));
  TextOptions documents = Options(TextConvention::kDocuments, 8);
  refused("short", documents);
  documents.separator.clear();
  refused("long enough for anything", documents);
}

TEST_CASE("Convention names go both ways") {
  for (const auto convention :
       {TextConvention::kWhole, TextConvention::kLlamaCpp, TextConvention::kDocuments}) {
    CHECK(*ParseConvention(ConventionName(convention)) == convention);
  }
  CHECK(ParseConvention("B").error().code == Code::kInvalidArgument);
}

}  // namespace
}  // namespace edgewise
