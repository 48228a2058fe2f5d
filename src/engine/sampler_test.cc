#include "engine/sampler.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <numeric>

#include "base/rng.h"

namespace edgewise {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();

SamplerOptions Plain() {
  SamplerOptions o;
  o.temperature = 1;
  o.top_k = 0;
  o.top_p = 1;
  o.min_p = 0;
  return o;
}

std::vector<float> RandomLogits(Rng* rng, size_t n, double spread = 3) {
  std::vector<float> logits(n);
  for (float& x : logits) x = static_cast<float>(spread * rng->Gaussian());
  return logits;
}

// A plain statement of the pipeline: every step sorts everything and works on a map of
// probabilities.
struct Entry {
  int32_t id;
  double logit;
  double p;
};

void Normalize(std::vector<Entry>* entries, double temperature) {
  double best = -INFINITY, total = 0;
  for (const Entry& e : *entries) best = std::max(best, e.logit);
  for (Entry& e : *entries) total += e.p = std::exp((e.logit - best) / temperature);
  for (Entry& e : *entries) e.p /= total;
}

std::map<int32_t, double> Reference(const SamplerOptions& o, std::vector<float> logits,
                                    const std::vector<int32_t>& history) {
  for (const auto& [id, bias] : o.logit_bias) logits[static_cast<size_t>(id)] += bias;
  std::map<int32_t, int> counts;
  const size_t window = o.penalty_last_n < 0
                            ? history.size()
                            : std::min(history.size(), static_cast<size_t>(o.penalty_last_n));
  for (size_t i = history.size() - window; i < history.size(); ++i) ++counts[history[i]];
  for (const auto& [id, count] : counts) {
    float& x = logits[static_cast<size_t>(id)];
    x = x > 0 ? x / o.repeat_penalty : x * o.repeat_penalty;
    x -= static_cast<float>(count) * o.frequency_penalty + o.presence_penalty;
  }
  std::vector<Entry> entries;
  for (size_t i = 0; i < logits.size(); ++i) {
    if (logits[i] > -kInf) entries.push_back({static_cast<int32_t>(i), logits[i], 0});
  }
  const auto by_logit = [](const Entry& a, const Entry& b) {
    return a.logit != b.logit ? a.logit > b.logit : a.id < b.id;
  };
  std::sort(entries.begin(), entries.end(), by_logit);
  if (o.top_k > 0 && static_cast<size_t>(o.top_k) < entries.size()) {
    entries.resize(static_cast<size_t>(o.top_k));
  }
  const auto keep_until = [&](double wanted) {
    double sum = 0;
    for (size_t i = 0; i < entries.size(); ++i) {
      sum += entries[i].p;
      if (sum >= wanted) {
        entries.resize(i + 1);
        return;
      }
    }
  };
  Normalize(&entries, 1);
  if (o.typical_p < 1) {
    double entropy = 0;
    for (const Entry& e : entries) entropy -= e.p * std::log(e.p);
    std::sort(entries.begin(), entries.end(), [&](const Entry& a, const Entry& b) {
      return std::fabs(-std::log(a.p) - entropy) < std::fabs(-std::log(b.p) - entropy);
    });
    keep_until(o.typical_p);
    std::sort(entries.begin(), entries.end(), by_logit);
    Normalize(&entries, 1);
  }
  if (o.top_p < 1) keep_until(o.top_p);
  Normalize(&entries, 1);
  if (o.min_p > 0) {
    const double least = o.min_p * entries[0].p;
    std::erase_if(entries, [&](const Entry& e) { return e.p < least; });
  }
  Normalize(&entries, o.temperature);
  std::map<int32_t, double> result;
  for (const Entry& e : entries) result[e.id] = e.p;
  return result;
}

Sampler Make(const SamplerOptions& options, size_t vocab_size) {
  auto sampler = Sampler::Create(options, static_cast<uint32_t>(vocab_size));
  REQUIRE(sampler);
  return *std::move(sampler);
}

// Draws `draws` times without Accept and compares the frequencies with the reference by chi-square.
void CheckFrequencies(const SamplerOptions& options, const std::vector<float>& logits,
                      const std::vector<int32_t>& history, int draws = 20000) {
  const std::map<int32_t, double> expected = Reference(options, logits, history);
  Sampler sampler = Make(options, logits.size());
  for (const int32_t id : history) sampler.Accept(id);
  std::map<int32_t, int> seen;
  for (int i = 0; i < draws; ++i) {
    const auto id = sampler.Sample(logits);
    REQUIRE(id);
    ++seen[*id];
  }
  double chi_square = 0;
  int degrees = -1;
  double rare_expected = 0, rare_seen = 0;
  for (const auto& [id, count] : seen) {
    INFO("token " << id << " was drawn but the reference excludes it");
    CHECK(expected.count(id) == 1);
  }
  for (const auto& [id, p] : expected) {
    const double mean = p * draws;
    if (mean < 8) {
      rare_expected += mean;
      rare_seen += seen[id];
      continue;
    }
    chi_square += (seen[id] - mean) * (seen[id] - mean) / mean;
    ++degrees;
  }
  if (rare_expected > 8) {
    chi_square += (rare_seen - rare_expected) * (rare_seen - rare_expected) / rare_expected;
    ++degrees;
  }
  // Mean `degrees`, variance 2 * degrees: five deviations. The seeds are fixed, so this passes
  // always or never.
  INFO("chi-square " << chi_square << " of " << degrees << " degrees");
  CHECK(chi_square <= degrees + 5 * std::sqrt(2.0 * std::max(degrees, 1)) + 5);
}

TEST_CASE("Greedy takes the highest logit and the lower id of equals") {
  SamplerOptions o;
  o.temperature = 0;
  Sampler sampler = Make(o, 5);
  CHECK(*sampler.Sample(std::vector<float>{1, 3, 2, 3, -1}) == 1);
  CHECK(*sampler.Sample(std::vector<float>{-kInf, -5, -kInf, -4, -6}) == 3);
  // No number is drawn: greedy steps do not shift a later sampled one.
  o.logit_bias = {{1, -kInf}};
  Sampler banned = Make(o, 5);
  CHECK(*banned.Sample(std::vector<float>{1, 3, 2, 3, -1}) == 3);
}

TEST_CASE("Sampled frequencies follow the softmax") {
  Rng rng(11);
  const std::vector<float> logits = RandomLogits(&rng, 40, 1.5);
  for (const float temperature : {0.5f, 1.0f, 2.0f}) {
    SamplerOptions o = Plain();
    o.temperature = temperature;
    o.seed = 5;
    CheckFrequencies(o, logits, {});
  }
}

TEST_CASE("Every filter agrees with a plain reference") {
  Rng rng(3);
  for (int round = 0; round < 12; ++round) {
    const std::vector<float> logits = RandomLogits(&rng, 300 + static_cast<size_t>(round) * 41);
    SamplerOptions o = Plain();
    o.seed = static_cast<uint64_t>(round);
    switch (round % 6) {
      case 0:
        o.top_k = 5 + round;
        break;
      case 1:
        o.top_p = 0.7f;
        break;
      case 2:
        o.min_p = 0.1f;
        break;
      case 3:
        o.typical_p = 0.6f;
        break;
      case 4:
        o.top_k = 50, o.typical_p = 0.9f, o.top_p = 0.8f, o.min_p = 0.05f, o.temperature = 1.4f;
        break;
      default:
        o.top_p = 0.95f, o.min_p = 0.02f, o.temperature = 0.7f;
        break;
    }
    INFO("round " << round);
    CheckFrequencies(o, logits, {}, 4000);
  }
}

TEST_CASE("Top-k over a large vocabulary keeps exactly the best") {
  Rng rng(8);
  std::vector<float> logits = RandomLogits(&rng, 20000, 1);
  for (size_t i = 0; i < 200; ++i) logits[rng.Below(20000)] = 6;  // ties at the edge
  for (const int32_t k : {1, 7, 64, 250, 19999, 20000, 30000}) {
    SamplerOptions o = Plain();
    o.top_k = k;
    o.temperature = 5;
    const std::map<int32_t, double> expected = Reference(o, logits, {});
    Sampler sampler = Make(o, logits.size());
    for (int i = 0; i < 50; ++i) CHECK(expected.count(*sampler.Sample(logits)) == 1);
  }
}

TEST_CASE("Penalties and bias agree with a plain reference, inside their window") {
  Rng rng(4);
  const std::vector<float> logits = RandomLogits(&rng, 30, 1.5);
  std::vector<int32_t> history;
  for (int i = 0; i < 40; ++i) history.push_back(static_cast<int32_t>(rng.Below(30)));
  for (const int32_t window : {-1, 0, 1, 10, 64}) {
    SamplerOptions o = Plain();
    o.repeat_penalty = 1.3f;
    o.presence_penalty = 0.4f;
    o.frequency_penalty = 0.2f;
    o.penalty_last_n = window;
    o.logit_bias = {{3, 2.0f}, {4, -kInf}, {3, 0.5f}};
    INFO("window " << window);
    if (window == 0) {
      SamplerOptions off = o;
      off.repeat_penalty = 1;
      off.presence_penalty = off.frequency_penalty = 0;
      CHECK(Reference(off, logits, history) == Reference(o, logits, {}));
    }
    CheckFrequencies(o, logits, history);
  }
}

// The published loop of DRY: for every earlier occurrence of the last token, count backwards.
std::map<int32_t, int> PlainDry(const std::vector<int32_t>& text,
                                const std::vector<int32_t>& breakers) {
  const auto breaks = [&](int32_t id) {
    return std::find(breakers.begin(), breakers.end(), id) != breakers.end();
  };
  std::map<int32_t, int> lengths;
  const int n = static_cast<int>(text.size());
  if (n == 0 || breaks(text.back())) return lengths;
  for (int i = 0; i + 1 < n; ++i) {
    const int32_t next = text[static_cast<size_t>(i + 1)];
    if (text[static_cast<size_t>(i)] != text.back() || breaks(next)) continue;
    int length = 1;
    while (i - length >= 0) {
      const int32_t previous = text[static_cast<size_t>(n - 1 - length)];
      if (text[static_cast<size_t>(i - length)] != previous || breaks(previous)) break;
      ++length;
    }
    lengths[next] = std::max(lengths[next], length);
  }
  return lengths;
}

TEST_CASE("DRY penalises what would extend a repetition, as its published loop does") {
  Rng rng(17);
  for (int round = 0; round < 300; ++round) {
    std::vector<int32_t> history;
    const size_t size = 1 + rng.Below(40);
    for (size_t i = 0; i < size; ++i)
      history.push_back(static_cast<int32_t>(rng.Below(3 + rng.Below(3))));
    SamplerOptions o = Plain();
    o.temperature = 0;
    o.dry_multiplier = 0.8f;
    o.dry_allowed_length = 1 + round % 3;
    if (round % 2 == 1) o.dry_breakers = {2};
    if (round % 5 == 0) o.dry_last_n = 10;
    std::vector<int32_t> seen = history;
    if (o.dry_last_n >= 0 && seen.size() > 10) seen.erase(seen.begin(), seen.end() - 10);
    const std::map<int32_t, int> lengths = PlainDry(seen, o.dry_breakers);

    // Logits apart by less than the smallest penalty make the greedy choice show the penalties one
    // by one.
    for (int32_t probe = 0; probe < 6; ++probe) {
      const auto found = lengths.find(probe);
      const bool hit = found != lengths.end() && found->second >= o.dry_allowed_length;
      const double penalty = hit ? 0.8 * std::pow(1.75, found->second - o.dry_allowed_length) : 0;
      for (const double margin : {-0.01, 0.01}) {
        std::vector<float> apart(6, -1e6f);
        const int32_t other = (probe + 1) % 6;
        apart[static_cast<size_t>(probe)] = static_cast<float>(penalty + margin);
        // The other token is held above its own penalty so that only `probe` decides.
        const auto other_found = lengths.find(other);
        const bool other_hit =
            other_found != lengths.end() && other_found->second >= o.dry_allowed_length;
        apart[static_cast<size_t>(other)] = static_cast<float>(
            other_hit ? 0.8 * std::pow(1.75, other_found->second - o.dry_allowed_length) : 0);
        if (penalty > 1e4) continue;  // margins vanish in float
        Sampler sampler = Make(o, 6);
        for (const int32_t id : history) sampler.Accept(id);
        CHECK(*sampler.Sample(apart) == (margin > 0 ? probe : other));
      }
    }
  }
}

TEST_CASE("The same seed gives the same tokens, another seed others, and Reset starts again") {
  Rng rng(2);
  const std::vector<float> logits = RandomLogits(&rng, 500, 1);
  const auto draw = [&](Sampler* sampler) {
    std::vector<int32_t> ids;
    for (int i = 0; i < 50; ++i) {
      ids.push_back(*sampler->Sample(logits));
      sampler->Accept(ids.back());
    }
    return ids;
  };
  SamplerOptions o;
  o.repeat_penalty = 1.1f;
  o.seed = 42;
  Sampler first = Make(o, 500), second = Make(o, 500);
  const std::vector<int32_t> ids = draw(&first);
  CHECK(ids == draw(&second));
  first.Reset();
  CHECK(ids == draw(&first));
  o.seed = 43;
  Sampler third = Make(o, 500);
  CHECK(ids != draw(&third));
}

TEST_CASE("One random number is drawn per token whatever the filters") {
  const std::vector<float> flat(1000, 0.0f);
  SamplerOptions o = Plain();
  o.seed = 9;
  Sampler sampler = Make(o, 1000);
  Rng rng(9);
  for (int i = 0; i < 200; ++i) {
    CHECK(*sampler.Sample(flat) == static_cast<int32_t>(rng.Uniform() * 1000));
  }
}

TEST_CASE("Bad logits are an error") {
  Sampler sampler = Make({}, 3);
  CHECK(sampler.Sample(std::vector<float>{1, NAN, 2}).error().code == Code::kBadData);
  CHECK(sampler.Sample(std::vector<float>{1, kInf, 2}).error().code == Code::kBadData);
  CHECK(sampler.Sample(std::vector<float>{-kInf, -kInf, -kInf}).error().code == Code::kBadData);
  CHECK(sampler.Sample(std::vector<float>{1, 2}).error().code == Code::kInvalidArgument);
  CHECK(*sampler.Sample(std::vector<float>{-kInf, 7, -kInf}) == 1);
  SamplerOptions o;
  o.logit_bias = {{1, 3e38f}};
  Sampler biased = Make(o, 3);
  CHECK(biased.Sample(std::vector<float>{0, 3e38f, 0}).error().code == Code::kInvalidArgument);
}

TEST_CASE("An option out of its range is refused by name") {
  const auto refused = [](auto change, const char* name) {
    SamplerOptions o;
    change(&o);
    const auto sampler = Sampler::Create(o, 100);
    REQUIRE(!sampler);
    CHECK(sampler.error().code == Code::kInvalidArgument);
    INFO(sampler.error().message);
    CHECK(sampler.error().message.find(name) != std::string::npos);
  };
  refused([](SamplerOptions* o) { o->temperature = -1; }, "temperature");
  refused([](SamplerOptions* o) { o->temperature = NAN; }, "temperature");
  refused([](SamplerOptions* o) { o->temperature = kInf; }, "temperature");
  refused([](SamplerOptions* o) { o->top_k = -1; }, "top_k");
  refused([](SamplerOptions* o) { o->top_p = 1.5f; }, "top_p");
  refused([](SamplerOptions* o) { o->min_p = -0.1f; }, "min_p");
  refused([](SamplerOptions* o) { o->typical_p = NAN; }, "typical_p");
  refused([](SamplerOptions* o) { o->repeat_penalty = 0; }, "repeat_penalty");
  refused([](SamplerOptions* o) { o->presence_penalty = kInf; }, "presence_penalty");
  refused([](SamplerOptions* o) { o->frequency_penalty = NAN; }, "frequency_penalty");
  refused([](SamplerOptions* o) { o->penalty_last_n = -2; }, "penalty_last_n");
  refused([](SamplerOptions* o) { o->dry_multiplier = -1; }, "dry_multiplier");
  refused([](SamplerOptions* o) { o->dry_base = 0.5f; }, "dry_base");
  refused([](SamplerOptions* o) { o->dry_allowed_length = 0; }, "dry_allowed_length");
  refused([](SamplerOptions* o) { o->dry_last_n = -2; }, "dry_last_n");
  refused([](SamplerOptions* o) { o->dry_breakers = {100}; }, "dry_breakers");
  refused([](SamplerOptions* o) { o->logit_bias = {{-1, 1.0f}}; }, "logit_bias");
  refused([](SamplerOptions* o) { o->logit_bias = {{1, NAN}}; }, "logit_bias");
  refused([](SamplerOptions* o) { o->logit_bias = {{1, kInf}}; }, "logit_bias");
  CHECK(!Sampler::Create({}, 0));
}

}  // namespace
}  // namespace edgewise
