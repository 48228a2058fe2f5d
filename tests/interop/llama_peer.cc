// Runs llama.cpp's own libraries, so that tests and benches can compare with them. Prints one JSON
// object. Options: --bins FOLDER (of the libraries), --threads N, --kv f16|f32, --plain (no
// repacking of the weights), --imatrix CALIBRATION (of quantize), --lora ADAPTER.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <map>
#include <stdexcept>
#include <string>
#include <vector>

#include "calibrate/calibration.h"
#include "tests/interop/llama_api.h"

namespace edgewise::interop {
namespace {

constexpr int kSkipped = 77;
constexpr char kUsage[] =
    "usage: llama_peer [--bins FOLDER] [--threads N] [--kv f16|f32] [--plain] [--imatrix FILE] "
    "[--lora FILE] COMMAND\n"
    "  greedy MODEL N ID...            the N ids that follow greedily, with the gap between the "
    "best two logits of each\n"
    "  logits MODEL ID...              the logits after the last id\n"
    "  perplexity MODEL CONTEXT FILE   llama-perplexity's convention on the ids in FILE (decimal, "
    "white space between)\n"
    "  quantize IN OUT FORMAT          llama.cpp's quantizer\n"
    "  bench MODEL PREFILL DECODE [N]  tokens per second of N sequences together\n"
    "  vocab MODEL                     loads the vocabulary only\n"
    "  version                         of the libraries\n";

// What ends the program: its message goes to stderr.
using Failure = std::runtime_error;

struct Options {
  std::string bins = EDGEWISE_LLAMA_BINS;
  int32_t threads = 2;
  bool f32_cache = false;
  bool plain = false;
  std::string imatrix, lora;
  std::vector<std::string> rest;
};

double Now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

unsigned long long PeakRssBytes() {
  std::ifstream status("/proc/self/status");
  std::string word;
  unsigned long long kib = 0;
  while (status >> word) {
    if (word == "VmHWM:" && status >> kib) return kib * 1024;
  }
  return 0;
}

int64_t ParseNumber(const std::string& text) {
  char* end = nullptr;
  const long long value = std::strtoll(text.c_str(), &end, 10);
  if (text.empty() || *end != '\0') throw Failure("not a number: " + text);
  return value;
}

std::vector<int32_t> ParseIds(const std::vector<std::string>& words, size_t first) {
  std::vector<int32_t> ids;
  for (size_t i = first; i < words.size(); ++i)
    ids.push_back(static_cast<int32_t>(ParseNumber(words[i])));
  if (ids.empty()) throw Failure("no token ids given");
  return ids;
}

Options ParseOptions(int argc, char** argv) {
  Options options;
  for (int i = 1; i < argc; ++i) {
    const std::string word = argv[i];
    const bool valued = word == "--bins" || word == "--threads" || word == "--kv" ||
                        word == "--imatrix" || word == "--lora";
    if (valued && i + 1 == argc) throw Failure(word + " needs a value");
    if (word == "--bins") {
      options.bins = argv[++i];
    } else if (word == "--threads") {
      options.threads = static_cast<int32_t>(ParseNumber(argv[++i]));
    } else if (word == "--imatrix") {
      options.imatrix = argv[++i];
    } else if (word == "--lora") {
      options.lora = argv[++i];
    } else if (word == "--kv") {
      options.f32_cache = std::strcmp(argv[++i], "f32") == 0;
    } else if (word == "--plain") {
      options.plain = true;
    } else {
      options.rest.push_back(word);
    }
  }
  return options;
}

// A loaded model with one context.
class Peer {
 public:
  // `context`: positions of each of `sequences`.
  Peer(const LlamaApi& api, const Options& options, const std::string& path, uint32_t context,
       uint32_t sequences = 1)
      : api_(api) {
    ModelParams model_params = api.model_default_params();
    model_params.n_gpu_layers = 0;
    model_params.use_extra_bufts = !options.plain;
    model_ = api.model_load_from_file(path.c_str(), model_params);
    if (!model_) throw Failure("llama.cpp cannot load " + path);
    ContextParams params = api.context_default_params();
    params.n_ctx = context * sequences;
    params.n_batch = std::max(context, sequences);
    params.n_seq_max = sequences;
    params.n_outputs_max_per_seq = 0;  // all of them
    params.n_threads = options.threads;
    params.n_threads_batch = options.threads;
    if (options.f32_cache) {
      params.type_k = params.type_v = 0;
      params.flash_attn_type = 0;
    }
    context_ = api.init_from_model(model_, params);
    if (!context_) throw Failure("llama.cpp cannot make a context for " + path);
    vocab_ = api.model_get_vocab(model_);
    if (!options.lora.empty()) SetAdapter(options.lora);
  }
  ~Peer() {
    api_.free(context_);
    api_.model_free(model_);
  }
  Peer(const Peer&) = delete;
  Peer& operator=(const Peer&) = delete;

  size_t vocab_size() const { return static_cast<size_t>(api_.vocab_n_tokens(vocab_)); }
  bool adds_bos() const { return api_.vocab_get_add_bos(vocab_); }
  int32_t bos() const { return api_.vocab_bos(vocab_); }

  void Clear() { api_.memory_clear(api_.get_memory(context_), true); }

  // Appends ids; the logits of every one from `first_output` on can then be read by its index in
  // `ids`.
  void Decode(std::vector<int32_t> ids, size_t first_output) {
    std::vector<int8_t> outputs(ids.size(), 0);
    std::fill(outputs.begin() + static_cast<std::ptrdiff_t>(first_output), outputs.end(),
              int8_t{1});
    const Batch batch{static_cast<int32_t>(ids.size()),
                      ids.data(),
                      nullptr,
                      nullptr,
                      nullptr,
                      nullptr,
                      outputs.data()};
    if (api_.decode(context_, batch) != 0) throw Failure("llama_decode failed");
  }

  // Appends ids[i] at `position` of sequence first + i, or all of them to sequence `first` from
  // `position` on; the last one's logits, or each one's, can then be read.
  void DecodeSequences(std::vector<int32_t> ids, size_t first, size_t position, bool one_each) {
    std::vector<int32_t> positions(ids.size()), counts(ids.size(), 1), sequences(ids.size());
    std::vector<int32_t*> pointers(ids.size());
    std::vector<int8_t> outputs(ids.size(), one_each ? 1 : 0);
    outputs.back() = 1;
    for (size_t i = 0; i < ids.size(); ++i) {
      positions[i] = static_cast<int32_t>(one_each ? position : position + i);
      sequences[i] = static_cast<int32_t>(one_each ? first + i : first);
      pointers[i] = &sequences[i];
    }
    const Batch batch{static_cast<int32_t>(ids.size()),
                      ids.data(),
                      nullptr,
                      positions.data(),
                      counts.data(),
                      pointers.data(),
                      outputs.data()};
    if (api_.decode(context_, batch) != 0) throw Failure("llama_decode failed");
  }

  const float* Logits(size_t index) const {
    const float* logits = api_.get_logits_ith(context_, static_cast<int32_t>(index));
    if (!logits) throw Failure("llama.cpp gave no logits");
    return logits;
  }

 private:
  // The model owns it.
  void SetAdapter(const std::string& path) {
    LlamaAdapter* adapter = api_.adapter_lora_init(model_, path.c_str());
    float scale = 1;
    if (!adapter || api_.set_adapters_lora(context_, &adapter, 1, &scale) != 0) {
      throw Failure("llama.cpp cannot use the adapter " + path);
    }
  }

  const LlamaApi& api_;
  LlamaModel* model_ = nullptr;
  LlamaContext* context_ = nullptr;
  const LlamaVocab* vocab_ = nullptr;
};

const std::string& Word(const Options& options, size_t index) {
  if (index >= options.rest.size()) throw Failure(kUsage);
  return options.rest[index];
}

template <class T>
void PrintList(const char* format, const std::vector<T>& values) {
  std::printf("[");
  for (size_t i = 0; i < values.size(); ++i) {
    if (i > 0) std::printf(", ");
    std::printf(format, values[i]);
  }
  std::printf("]");
}

void Greedy(const LlamaApi& api, const Options& options) {
  const auto count = static_cast<size_t>(ParseNumber(Word(options, 2)));
  std::vector<int32_t> pending = ParseIds(options.rest, 3);
  Peer peer(api, options, Word(options, 1), static_cast<uint32_t>(pending.size() + count));
  std::vector<int32_t> ids;
  std::vector<double> gaps;
  while (ids.size() < count) {
    peer.Decode(pending, pending.size() - 1);
    const float* logits = peer.Logits(pending.size() - 1);
    const float* best = std::max_element(logits, logits + peer.vocab_size());
    float second = -INFINITY;
    for (const float* logit = logits; logit < logits + peer.vocab_size(); ++logit) {
      if (logit != best) second = std::max(second, *logit);
    }
    ids.push_back(static_cast<int32_t>(best - logits));
    gaps.push_back(*best - second);
    pending = {ids.back()};
  }
  std::printf("{\"ids\": ");
  PrintList("%d", ids);
  std::printf(", \"gaps\": ");
  PrintList("%.6g", gaps);
  std::printf("}\n");
}

void Logits(const LlamaApi& api, const Options& options) {
  const std::vector<int32_t> ids = ParseIds(options.rest, 2);
  Peer peer(api, options, Word(options, 1), static_cast<uint32_t>(ids.size()));
  peer.Decode(ids, ids.size() - 1);
  const float* logits = peer.Logits(ids.size() - 1);
  std::printf("{\"logits\": ");
  PrintList("%.9g", std::vector<double>(logits, logits + peer.vocab_size()));
  std::printf("}\n");
}

// -log softmax(logits)[target]
double NegativeLogProbability(const float* logits, size_t size, int32_t target) {
  const double largest = *std::max_element(logits, logits + size);
  double sum = 0;
  for (size_t i = 0; i < size; ++i) sum += std::exp(logits[i] - largest);
  return std::log(sum) + largest - logits[target];
}

void Perplexity(const LlamaApi& api, const Options& options) {
  const auto context = static_cast<size_t>(ParseNumber(Word(options, 2)));
  std::ifstream file(Word(options, 3));
  std::vector<int32_t> ids;
  for (int32_t id; file >> id;) ids.push_back(id);
  if (context < 4 || ids.size() < context) throw Failure("fewer ids than one context");
  Peer peer(api, options, Word(options, 1), static_cast<uint32_t>(context));
  double nll = 0;
  size_t scored = 0, chunks = 0;
  for (; (chunks + 1) * context <= ids.size(); ++chunks) {
    const auto begin = ids.begin() + static_cast<std::ptrdiff_t>(chunks * context);
    std::vector<int32_t> chunk(begin, begin + static_cast<std::ptrdiff_t>(context));
    if (peer.adds_bos()) chunk[0] = peer.bos();
    peer.Clear();
    peer.Decode(chunk, context / 2);
    for (size_t i = context / 2; i + 1 < context; ++i, ++scored) {
      nll += NegativeLogProbability(peer.Logits(i), peer.vocab_size(), chunk[i + 1]);
    }
  }
  nll /= static_cast<double>(scored);
  std::printf(
      "{\"perplexity\": %.9g, \"nll\": %.9g, \"tokens\": %zu, \"windows\": %zu, \"context\": "
      "%zu}\n",
      std::exp(nll), nll, scored, chunks, context);
}

// The mean squares of a calibration file, as llama_model_quantize takes them.
struct Imatrix {
  void Load(const std::string& path) {
    const auto file = CalibrationFile::Open(path);
    if (!file) throw Failure(file.error().message);
    for (const std::string& weight : file->weights()) {
      // llama-imatrix leaves the output matrix out unless asked.
      if (!weight.starts_with("blk.")) continue;
      const auto moments = file->Moments(weight);
      if (!moments) throw Failure(moments.error().message);
      names.push_back(weight);
      values.emplace_back();
      for (const double sum : moments->sum_squares) {
        values.back().push_back(static_cast<float>(sum / static_cast<double>(moments->tokens)));
      }
    }
    for (size_t i = 0; i < names.size(); ++i) {
      entries.push_back({names[i].c_str(), values[i].data(), values[i].size()});
    }
    entries.push_back({nullptr, nullptr, 0});
  }
  std::vector<std::string> names;
  std::vector<std::vector<float>> values;
  std::vector<ImatrixEntry> entries;  // ends with a null name
};

void Quantize(const LlamaApi& api, const Options& options) {
  static const std::map<std::string, int32_t> formats = {
      {"f32", 0},      {"f16", 1},     {"q4_0", 2},    {"q4_1", 3},    {"q8_0", 7},
      {"q5_0", 8},     {"q5_1", 9},    {"q2_k", 10},   {"q2_k_s", 21}, {"q3_k_s", 11},
      {"q3_k_m", 12},  {"q3_k_l", 13}, {"q4_k_s", 14}, {"q4_k_m", 15}, {"q5_k_s", 16},
      {"q5_k_m", 17},  {"q6_k", 18},   {"iq4_nl", 25}, {"iq4_xs", 30}, {"bf16", 32},
      {"iq2_xxs", 19}, {"iq2_xs", 20}, {"iq2_s", 28},  {"iq2_m", 29},  {"iq3_xxs", 23},
      {"iq3_s", 26},   {"iq3_m", 27}};
  const auto format = formats.find(Word(options, 3));
  if (format == formats.end()) throw Failure("unknown format " + Word(options, 3));
  QuantizeParams params = api.model_quantize_default_params();
  params.nthread = options.threads;
  params.ftype = format->second;
  params.allow_requantize = format->first == "f32";  // decodes any model
  Imatrix imatrix;
  if (!options.imatrix.empty()) {
    imatrix.Load(options.imatrix);
    params.imatrix = imatrix.entries.data();
  }
  const double start = Now();
  if (api.model_quantize(Word(options, 1).c_str(), Word(options, 2).c_str(), &params) != 0) {
    throw Failure("llama_model_quantize failed");
  }
  std::printf("{\"seconds\": %.6f, \"peak_rss_bytes\": %llu}\n", Now() - start, PeakRssBytes());
}

void Bench(const LlamaApi& api, const Options& options) {
  constexpr int kRepetitions = 3;
  const auto prefill = static_cast<size_t>(ParseNumber(Word(options, 2)));
  const auto decode = static_cast<size_t>(ParseNumber(Word(options, 3)));
  const size_t sequences =
      options.rest.size() > 4 ? static_cast<size_t>(ParseNumber(Word(options, 4))) : 1;
  if (prefill < 1 || decode < 1 || sequences < 1) {
    throw Failure("bench needs at least one token of each and one sequence");
  }
  const double load_start = Now();
  Peer peer(api, options, Word(options, 1), static_cast<uint32_t>(prefill + decode),
            static_cast<uint32_t>(sequences));
  const double load = Now() - load_start;
  std::vector<int32_t> prompt(prefill);
  uint32_t state = 1;
  for (int32_t& id : prompt) {
    state = state * 1664525u + 1013904223u;
    id = static_cast<int32_t>((state >> 8) % peer.vocab_size());
  }
  std::vector<double> prefill_rates, decode_rates;
  for (int i = -1; i < kRepetitions; ++i) {  // the first one warms up
    peer.Clear();
    double start = Now();
    for (size_t s = 0; s < sequences; ++s) {
      peer.DecodeSequences(prompt, s, 0, false);
      peer.Logits(prefill - 1);  // waits for the result
    }
    const double prefill_seconds = Now() - start;
    start = Now();
    for (size_t step = 0; step < decode; ++step) {
      const std::vector<int32_t> ids(sequences, prompt[step % prefill]);
      peer.DecodeSequences(ids, 0, prefill + step, true);
      peer.Logits(sequences - 1);
    }
    if (i < 0) continue;
    prefill_rates.push_back(static_cast<double>(sequences * prefill) / prefill_seconds);
    decode_rates.push_back(static_cast<double>(sequences * decode) / (Now() - start));
  }
  std::sort(prefill_rates.begin(), prefill_rates.end());
  std::sort(decode_rates.begin(), decode_rates.end());
  std::printf(
      "{\"prefill_tokens_per_s\": %.3f, \"decode_tokens_per_s\": %.3f, \"load_seconds\": %.6f, "
      "\"peak_rss_bytes\": %llu, "
      "\"threads\": %d}\n",
      prefill_rates[kRepetitions / 2], decode_rates[kRepetitions / 2], load, PeakRssBytes(),
      options.threads);
}

void LoadVocab(const LlamaApi& api, const Options& options) {
  ModelParams params = api.model_default_params();
  params.vocab_only = true;
  LlamaModel* const model = api.model_load_from_file(Word(options, 1).c_str(), params);
  if (!model) throw Failure("llama.cpp cannot load the vocabulary of " + Word(options, 1));
  const LlamaVocab* const vocab = api.model_get_vocab(model);
  std::printf("{\"tokens\": %d, \"bos\": %d, \"add_bos\": %s}\n", api.vocab_n_tokens(vocab),
              api.vocab_bos(vocab), api.vocab_get_add_bos(vocab) ? "true" : "false");
  api.model_free(model);
}

void Version(const LlamaApi& api, const Options&) {
  std::printf("{\"version\": \"%s\"}\n", api.version());
}

int Run(int argc, char** argv) {
  const Options options = ParseOptions(argc, argv);
  static const std::map<std::string, void (*)(const LlamaApi&, const Options&)> commands = {
      {"greedy", Greedy}, {"logits", Logits},   {"perplexity", Perplexity}, {"quantize", Quantize},
      {"bench", Bench},   {"vocab", LoadVocab}, {"version", Version}};
  const auto command = options.rest.empty() ? commands.end() : commands.find(options.rest[0]);
  if (command == commands.end()) throw Failure(kUsage);
  LlamaApi api;
  if (const std::string problem = api.Open(options.bins); !problem.empty()) {
    std::fprintf(stderr, "llama_peer: %s\nrun: npm ci --ignore-scripts --prefix tests/npm\n",
                 problem.c_str());
    return kSkipped;
  }
  command->second(api, options);
  return 0;
}

}  // namespace
}  // namespace edgewise::interop

int main(int argc, char** argv) {
  try {
    return edgewise::interop::Run(argc, argv);
  } catch (const std::exception& failure) {
    std::fprintf(stderr, "llama_peer: %s\n", failure.what());
    return 1;
  }
}
