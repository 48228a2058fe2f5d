#include "eval/latency.h"

#include <doctest/doctest.h>

#include "base/process.h"
#include "engine/test_engine.h"
#include "eval/percentile.h"

namespace edgewise {
namespace {

TEST_CASE("The percentile is LoadGen's") {
  std::vector<double> values;
  for (int i = 100; i >= 1; --i) values.push_back(i);
  CHECK(Percentile(values, 0) == 1);
  CHECK(Percentile(values, 0.5) == 51);
  CHECK(Percentile(values, 0.9) == 91);
  CHECK(Percentile(values, 0.99) == 100);
  CHECK(Percentile({7}, 0.99) == 7);
  CHECK(Percentile({1, 2, 3}, 0.5) == 2);
}

TEST_CASE("Latency is measured as asked and its figures fit together") {
  Engine* engine = BundledEngine();
  LatencyOptions options;
  options.prompt_tokens = 40;
  options.new_tokens = 12;
  options.repetitions = 2;
  const auto result = MeasureLatency(engine, options);
  REQUIRE(result);
  CHECK(result->prompt_tokens == 40);
  CHECK(result->new_tokens == 12);
  CHECK(result->decode_p50_ms > 0);
  CHECK(result->decode_p50_ms <= result->decode_p90_ms);
  CHECK(result->decode_p90_ms <= result->decode_p99_ms);
  // A mean step lies between nothing and the longest one.
  CHECK(1e3 / result->decode_tokens_per_s <= result->decode_p99_ms * 1.0001);
  CHECK(result->prefill_tokens_per_s > 0);
  CHECK(result->ttft_ms >= 1e3 * 40 / result->prefill_tokens_per_s * 0.999);
  CHECK(result->load_ms > 0);
  CHECK(result->bytes_per_token == engine->model().bytes_per_token());
  CHECK(result->peak_rss_bytes > result->bytes_per_token);
  CHECK(result->peak_anon_bytes > 0);
  CHECK(result->peak_anon_bytes <= result->peak_rss_bytes);
  // 4 layers of 4 * 256 * 256 + 3 * 256 * 768 weights for each token, 2048 * 256 of the output
  // once.
  CHECK(result->prefill_ops == 2ull * (4 * (4 * 256 * 256 + 3 * 256 * 768) * 40 + 2048 * 256));
  CHECK(result->bandwidth_share == 0);
}

TEST_CASE("Runs are repeated until they took as long as asked") {
  LatencyOptions options;
  options.prompt_tokens = 8;
  options.new_tokens = 2;
  options.repetitions = 2;
  CHECK(MeasureLatency(BundledEngine(), options)->repetitions == 2);
  options.min_seconds = 0.3;
  const double start = NowSeconds();
  const auto result = MeasureLatency(BundledEngine(), options);
  CHECK(NowSeconds() - start >= 0.3);
  CHECK(result->repetitions >= 2);
}

TEST_CASE("Several sequences are measured together") {
  LatencyOptions options;
  options.prompt_tokens = 20;
  options.new_tokens = 6;
  options.sequences = 3;
  const auto result = MeasureLatency(BundledEngine(), options);
  REQUIRE(result);
  CHECK(result->sequences == 3);
  CHECK(result->prefill_ops == 3 * 2ull * (4 * (4 * 256 * 256 + 3 * 256 * 768) * 20 + 2048 * 256));
  // Three tokens a step, and no step is longer than the longest.
  CHECK(3e3 / result->decode_tokens_per_s <= result->decode_p99_ms * 1.0001);
  LatencyOptions one = options;
  one.sequences = 1;
  const auto single = MeasureLatency(BundledEngine(), one);
  REQUIRE(single);
  CHECK(result->kv_bytes == 3 * single->kv_bytes);
  options.sequences = 0;
  CHECK(MeasureLatency(BundledEngine(), options).error().code == Code::kInvalidArgument);
}

TEST_CASE("Shares are held against the machine") {
  LatencyResult result;
  result.decode_tokens_per_s = 100;
  result.sequences = 2;
  result.bytes_per_token = 400'000'000;
  result.prompt_tokens = 100;
  result.prefill_ops = 200'000'000'000;
  result.prefill_tokens_per_s = 50;
  MachineLimits limits;
  limits.read_bytes_per_s = 40e9;
  limits.int8_ops_per_s = 500e9;
  SetShares(limits, &result);
  CHECK(result.bandwidth_share == doctest::Approx(0.5));
  CHECK(result.int8_peak_share == doctest::Approx(0.1));
}

TEST_CASE("Sizes that do not fit are refused, and the usual ones do") {
  LatencyOptions options;
  options.prompt_tokens = 250;
  options.new_tokens = 7;  // the model was trained for 256
  CHECK(MeasureLatency(BundledEngine(), options).error().code == Code::kInvalidArgument);
  options = {};
  options.repetitions = 0;
  CHECK(MeasureLatency(BundledEngine(), options).error().code == Code::kInvalidArgument);
  options.repetitions = 1;
  const auto usual = MeasureLatency(BundledEngine(), options);
  REQUIRE(usual);
  CHECK(usual->prompt_tokens == 128);
  CHECK(usual->new_tokens == 64);
}

TEST_CASE("The members of the JSON output have their names") {
  const Json json = ToJson(LatencyResult());
  for (const char* key :
       {"prefill_tokens_per_s", "decode_tokens_per_s", "decode_p50_ms", "decode_p90_ms",
        "decode_p99_ms", "ttft_ms", "load_ms", "peak_rss_bytes", "peak_anon_bytes",
        "bytes_per_token", "bandwidth_share", "int8_peak_share"}) {
    CHECK(json.Find(key) != nullptr);
  }
}

TEST_CASE("The machine is measured and says how") {
  ThreadPool pool(2);
  MachineOptions options;
  options.buffer_bytes = 4u << 20;
  options.repetitions = 1;
  options.int8_seconds = 0.0005;
  const auto limits = MeasureMachine(&pool, options);
  REQUIRE_MESSAGE(limits.has_value(), (limits ? "" : limits.error().message));
  CHECK(limits->read_bytes_per_s > 1e6);
  CHECK(limits->int8_ops_per_s > 1e6);
  CHECK(limits->threads == 2);
  CHECK(limits->how.find("4.00 MiB") != std::string::npos);
  CHECK(limits->how.find(kernels::Active().name) != std::string::npos);
  options.repetitions = 0;
  CHECK(MeasureMachine(&pool, options).error().code == Code::kInvalidArgument);
  options.repetitions = 1;
  options.buffer_bytes = 5;
  CHECK(MeasureMachine(&pool, options).error().code == Code::kInvalidArgument);
  const MachineDescription machine = DescribeMachine();
  CHECK(machine.cpus >= 1);
  CHECK(machine.memory_bytes > (64u << 20));
  CHECK(machine.system.starts_with("Linux"));
}

}  // namespace
}  // namespace edgewise
