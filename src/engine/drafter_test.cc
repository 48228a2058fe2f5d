// Speculative decoding: the text stays the same, the distribution too, and bad guesses cost little.
#include "engine/drafter.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <string>
#include <vector>

#include "engine/session.h"
#include "engine/test_engine.h"
#include "tests/test_data.h"

namespace edgewise {
namespace {

// With two threads.
Engine* Bundled() {
  static const std::unique_ptr<Engine> engine = LoadTestEngine(BundledModel(), 2);
  return engine.get();
}

Sampler AnySampler() {
  auto sampler = Sampler::Create({}, 100);
  REQUIRE(sampler);
  return *std::move(sampler);
}

Generation Write(Engine* engine, std::string_view prompt, GenerateOptions options,
                 kernels::KvFormat format = kernels::KvFormat::kF16) {
  SessionOptions session_options;
  session_options.kv_format = format;
  auto session = Session::Create(engine, session_options);
  REQUIRE(session);
  const auto ids = engine->tokenizer().Encode(prompt);
  REQUIRE(ids);
  REQUIRE(session->Append(*ids));
  auto generation = session->Generate(options);
  REQUIRE_MESSAGE(generation.has_value(), (generation ? "" : generation.error().message));
  // What is cached is what was written, the last token perhaps excepted.
  CHECK(session->tokens().size() == ids->size() + generation->ids.size());
  CHECK(session->cached() <= session->tokens().size());
  CHECK(session->cached() + 1 >= session->tokens().size());
  return *std::move(generation);
}

// Guesses nonsense, or what a fixed text says, always as many tokens as it may.
struct FixedDrafter : Drafter {
  std::vector<int32_t> text;
  size_t prompt = 0;
  size_t calls = 0;
  Result<std::vector<int32_t>> Draft(std::span<const int32_t> tokens, const Sampler&,
                                     size_t max) override {
    ++calls;
    std::vector<int32_t> guesses;
    for (size_t i = tokens.size() - prompt; guesses.size() < max; ++i) {
      guesses.push_back(i < text.size() ? text[i] : 5);
    }
    return guesses;
  }
};

TEST_CASE("prompt lookup copies what followed the longest match, and goes on in a period") {
  PromptLookup lookup;
  const Sampler sampler = AnySampler();
  const auto draft = [&](std::vector<int32_t> tokens, size_t max) {
    const auto guesses = lookup.Draft(tokens, sampler, max);
    REQUIRE(guesses);
    return *guesses;
  };
  using Ids = std::vector<int32_t>;
  CHECK(draft({1, 2, 3, 4, 9, 2, 3}, 2) == Ids{4, 9});
  // The longer match wins over the nearer one.
  CHECK(draft({1, 2, 3, 4, 7, 2, 3, 5, 1, 2, 3}, 1) == Ids{4});
  CHECK(draft({8, 6, 6, 6}, 4) == Ids{6, 6, 6, 6});
  CHECK(draft({1, 2, 1, 2, 1}, 4) == Ids{2, 1, 2, 1});
  CHECK(draft({1, 2, 3, 4, 3}, 4).empty());  // one token is no match
  CHECK(draft({1}, 4).empty());
}

TEST_CASE("any drafter leaves the text as it is") {
  for (const float temperature : {0.0f, 0.7f, 1.3f}) {
    GenerateOptions options;
    options.max_tokens = 90;
    options.sampler.temperature = temperature;
    options.sampler.seed = 11;
    options.sampler.repeat_penalty = temperature > 1 ? 1.2f : 1.0f;
    const std::string prompt = "Once upon a time there was a little dog";
    const Generation expected = Write(Bundled(), prompt, options);
    CHECK(expected.drafted == 0);
    const auto prompt_ids = Bundled()->tokenizer().Encode(prompt);
    REQUIRE(prompt_ids);

    PromptLookup lookup;
    FixedDrafter wrong, right;
    wrong.prompt = right.prompt = prompt_ids->size();
    right.text = expected.ids;
    auto same = DraftModel::Create(LoadTestEngine(BundledModel()), Bundled(), 512);
    REQUIRE(same);
    for (Drafter* drafter : {static_cast<Drafter*>(&lookup), static_cast<Drafter*>(&wrong),
                             static_cast<Drafter*>(&right), static_cast<Drafter*>(same->get())}) {
      options.drafter = drafter;
      for (const uint32_t max_draft : {1u, 5u, kMaxDraft}) {
        options.max_draft = max_draft;
        const Generation generation = Write(Bundled(), prompt, options);
        CHECK(generation.ids == expected.ids);
        CHECK(generation.text == expected.text);
        CHECK(generation.reason == expected.reason);
        CHECK(generation.accepted <= generation.drafted);
        if (drafter == &right || drafter == same->get()) {
          CHECK(generation.accepted == generation.drafted);
          CHECK(generation.drafted > 40);
        }
        if (drafter == &wrong) CHECK(generation.drafted < 30);  // it is asked less and less
      }
    }
    // A stop string in the middle of accepted guesses.
    options.drafter = &right;
    options.stop = {expected.text.substr(60, 5)};
    const Generation stopped = Write(Bundled(), prompt, options);
    options.drafter = nullptr;
    CHECK(stopped.ids == Write(Bundled(), prompt, options).ids);
    CHECK(stopped.reason == StopReason::kStopString);
  }
}

TEST_CASE("a session goes on after guesses as it does without") {
  const std::string prompt = "Tim and Sue went to the park.";
  GenerateOptions options;
  options.max_tokens = 20;
  options.sampler.temperature = 0;
  const auto both = [&](Drafter* drafter, kernels::KvFormat format) {
    options.drafter = drafter;
    SessionOptions session_options;
    session_options.kv_format = format;
    auto session = Session::Create(Bundled(), session_options);
    REQUIRE(session);
    const auto ids = Bundled()->tokenizer().Encode(prompt);
    REQUIRE(session->Append(*ids));
    std::vector<int32_t> all;
    for (int turn = 0; turn < 3; ++turn) {
      const auto generation = session->Generate(options);
      REQUIRE(generation);
      all.insert(all.end(), generation->ids.begin(), generation->ids.end());
    }
    return all;
  };
  for (const auto format : {kernels::KvFormat::kF16, kernels::KvFormat::kQ4_0}) {
    FixedDrafter half;  // right for some tokens, then wrong
    const std::vector<int32_t> expected = both(nullptr, format);
    half.prompt = Bundled()->tokenizer().Encode(prompt)->size();
    half.text = expected;
    for (size_t i = 0; i < half.text.size(); i += 4) half.text[i] = 7;
    CHECK(both(&half, format) == expected);
    CHECK(half.calls > 0);
  }
}

// Guesses what the model would say if it saw only the last token: often wrong.
struct ShortSighted : Drafter {
  ForwardPass pass{Bundled()->model(), &Bundled()->pool()};
  std::vector<float> logits = std::vector<float>(Bundled()->model().spec().vocab_size);
  Result<std::vector<int32_t>> Draft(std::span<const int32_t> tokens, const Sampler& sampler,
                                     size_t max) override {
    EW_TRY(KvCache cache, KvCache::Create(Bundled()->model().spec(), 8, kernels::KvFormat::kF16));
    Sampler chooser = sampler;
    std::vector<int32_t> guesses = {tokens.back()};
    while (guesses.size() <= std::min<size_t>(max, 2)) {
      EW_TRY(pass.Run(std::span(guesses).last(1), &cache, 0, logits));
      const auto size = static_cast<size_t>(Bundled()->tokenizer().size());
      EW_TRY(const int32_t id, chooser.Sample(std::span(logits).first(size)));
      chooser.Accept(id);
      guesses.push_back(id);
    }
    guesses.erase(guesses.begin());
    return guesses;
  }
};

constexpr int kChoices = 5;  // top-k

// The likeliest tokens after `tokens` and their probabilities among themselves.
std::map<int32_t, double> Choices(const std::vector<int32_t>& tokens) {
  auto cache = KvCache::Create(Bundled()->model().spec(), 64, kernels::KvFormat::kF16);
  REQUIRE(cache);
  ForwardPass pass(Bundled()->model(), &Bundled()->pool());
  std::vector<float> logits(Bundled()->model().spec().vocab_size);
  REQUIRE(pass.Run(tokens, &*cache, tokens.size() - 1, logits));
  logits.resize(static_cast<size_t>(Bundled()->tokenizer().size()));
  std::map<int32_t, double> choices;
  double total = 0;
  for (int i = 0; i < kChoices; ++i) {
    const auto best = std::max_element(logits.begin(), logits.end());
    total += choices[static_cast<int32_t>(best - logits.begin())] =
        std::exp(static_cast<double>(*best));
    *best = -INFINITY;
  }
  for (auto& [id, p] : choices) p /= total;
  return choices;
}

TEST_CASE("sampled text follows the model's distribution: chi-square over three tokens") {
  constexpr int kDraws = 2000;
  const auto prompt = Bundled()->tokenizer().Encode("Once upon a time, there was a");
  REQUIRE(prompt);
  auto session = Session::Create(Bundled(), {.context = 64});
  REQUIRE(session);
  ShortSighted drafter;
  GenerateOptions options;
  options.drafter = &drafter;
  options.max_tokens = 3;
  options.ignore_eos = true;
  options.sampler.temperature = 1;
  options.sampler.top_k = kChoices;
  options.sampler.top_p = 1;
  options.sampler.min_p = 0;
  std::map<std::vector<int32_t>, int> counts;
  uint64_t drafted = 0, accepted = 0;
  for (int draw = 0; draw < kDraws; ++draw) {
    options.sampler.seed = static_cast<uint64_t>(draw);
    REQUIRE(session->Replace(*prompt));
    const auto generation = session->Generate(options);
    REQUIRE(generation);
    ++counts[generation->ids];
    drafted += generation->drafted;
    accepted += generation->accepted;
  }
  CHECK(accepted > drafted / 20);
  CHECK(accepted < drafted * 19 / 20);

  double chi_square = 0, rest_expected = 0, rest_count = 0;
  int cells = 0;
  const auto add = [&](double expected, double count) {
    chi_square += (count - expected) * (count - expected) / expected;
    ++cells;
  };
  for (const auto& [a, pa] : Choices(*prompt)) {
    std::vector<int32_t> text = *prompt;
    text.push_back(a);
    for (const auto& [b, pb] : Choices(text)) {
      text.push_back(b);
      for (const auto& [c, pc] : Choices(text)) {
        const double expected = kDraws * pa * pb * pc;
        const double count = counts.contains({a, b, c}) ? counts[{a, b, c}] : 0;
        if (expected >= 8) {
          add(expected, count);
        } else {  // cells of few are pooled
          rest_expected += expected;
          rest_count += count;
        }
      }
      text.pop_back();
    }
  }
  if (rest_expected > 0) add(rest_expected, rest_count);
  // The cube root of chi-square is nearly normal (Wilson and Hilferty 1931).
  const double freedom = cells - 1;
  const double variance = 2 / (9 * freedom);
  const double z = (std::cbrt(chi_square / freedom) - (1 - variance)) / std::sqrt(variance);
  MESSAGE("chi-square " << chi_square << " with " << freedom << " degrees of freedom, z " << z
                        << "; " << accepted << " of " << drafted << " guesses right");
  CHECK(cells > 20);
  CHECK(std::fabs(z) < 3.9);  // 1 in 10,000
}

TEST_CASE("useless guesses become rare, good ones long") {
  DraftLength length(16);
  size_t guesses = 0;
  for (int step = 0; step < 100; ++step) {
    const size_t count = length.Next();
    guesses += count;
    length.Report(count, 0);
  }
  CHECK(guesses < 20);
  for (int step = 0; step < 40; ++step) {
    const size_t count = length.Next();
    length.Report(count, count);
  }
  CHECK(length.Next() == 16);
}

TEST_CASE("a draft with another vocabulary is refused, with the token that differs") {
  EW_EXTERNAL_OR_SKIP(other, "models/stories260K/stories260K.bin");
  EW_EXTERNAL_OR_SKIP(vocabulary, "models/stories260K/tok512.bin");
  EngineOptions options;
  options.threads = 1;
  options.tokenizer_path = vocabulary;
  auto draft = Engine::Load(other, options);
  REQUIRE(draft);
  const auto made = DraftModel::Create(*std::move(draft), Bundled(), 64);
  REQUIRE_FALSE(made.has_value());
  CHECK(made.error().code == Code::kInvalidArgument);
  CHECK(made.error().message.find("token ") != std::string::npos);

  GenerateOptions generate;
  generate.max_draft = 0;
  auto session = Session::Create(Bundled(), {});
  REQUIRE(session);
  REQUIRE(session->Append(std::vector<int32_t>{1}));
  const auto refused = session->Generate(generate);
  REQUIRE_FALSE(refused.has_value());
  CHECK(refused.error().code == Code::kInvalidArgument);
}

}  // namespace
}  // namespace edgewise
