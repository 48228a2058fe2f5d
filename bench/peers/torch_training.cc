// The peer of training: a Llama of plain libtorch modules, with full logits and attention over
// whole sequences, trained by AdamW in F32 or with everything in BF16. Prints what bench/training
// does.
// usage: torch_training DIM LAYERS HEADS FFN VOCABULARY SEQUENCE SEQUENCES f32|bf16 THREADS STEPS
#include <sys/resource.h>
#include <time.h>
#include <torch/torch.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

namespace {

using torch::Tensor;
namespace nn = torch::nn;

struct Shape {
  int64_t dim, layers, heads, ffn, vocabulary, sequence, sequences;
};

nn::Linear Projection(int64_t in, int64_t out) {
  return nn::Linear(nn::LinearOptions(in, out).bias(false));
}

struct RmsNormImpl : nn::Module {
  explicit RmsNormImpl(int64_t dim) : weight(register_parameter("weight", torch::ones(dim))) {}
  Tensor forward(const Tensor& x) {
    return x * torch::rsqrt(x.pow(2).mean(-1, true) + 1e-5) * weight;
  }
  Tensor weight;
};
TORCH_MODULE(RmsNorm);

struct BlockImpl : nn::Module {
  explicit BlockImpl(const Shape& s)
      : heads(s.heads),
        norm(register_module("norm", RmsNorm(s.dim))),
        ffn_norm(register_module("ffn_norm", RmsNorm(s.dim))),
        qkv(register_module("qkv", Projection(s.dim, 3 * s.dim))),
        output(register_module("output", Projection(s.dim, s.dim))),
        gate_up(register_module("gate_up", Projection(s.dim, 2 * s.ffn))),
        down(register_module("down", Projection(s.ffn, s.dim))) {}

  // cos, sin: (sequence, head / 2); mask: (sequence, sequence), 0 or -inf.
  Tensor forward(const Tensor& x, const Tensor& cos, const Tensor& sin, const Tensor& mask) {
    const int64_t batch = x.size(0), tokens = x.size(1), dim = x.size(2);
    const std::vector<Tensor> parts = qkv(norm(x)).chunk(3, -1);
    const auto split = [&](const Tensor& part) {
      return part.view({batch, tokens, heads, dim / heads}).transpose(1, 2);
    };
    const auto rotate = [&](const Tensor& part) {
      const std::vector<Tensor> halves = split(part).chunk(2, -1);
      return torch::cat({halves[0] * cos - halves[1] * sin, halves[0] * sin + halves[1] * cos}, -1);
    };
    const Tensor scores = torch::matmul(rotate(parts[0]), rotate(parts[1]).transpose(-1, -2)) /
                              std::sqrt(static_cast<double>(dim / heads)) +
                          mask;
    const Tensor mixed = torch::matmul(torch::softmax(scores, -1), split(parts[2]));
    const Tensor middle = x + output(mixed.transpose(1, 2).reshape({batch, tokens, dim}));
    const std::vector<Tensor> gated = gate_up(ffn_norm(middle)).chunk(2, -1);
    return middle + down(torch::silu(gated[0]) * gated[1]);
  }

  int64_t heads;
  RmsNorm norm, ffn_norm;
  nn::Linear qkv, output, gate_up, down;
};
TORCH_MODULE(Block);

struct LlamaImpl : nn::Module {
  explicit LlamaImpl(const Shape& s)
      : embedding(register_module("embedding", nn::Embedding(s.vocabulary, s.dim))),
        norm(register_module("norm", RmsNorm(s.dim))) {
    for (int64_t l = 0; l < s.layers; ++l) {
      blocks.push_back(register_module("block" + std::to_string(l), Block(s)));
    }
    const int64_t half = s.dim / s.heads / 2;
    const Tensor frequencies =
        torch::pow(10000.0, -torch::arange(half).to(torch::kFloat) / static_cast<double>(half));
    const Tensor angles = torch::outer(torch::arange(s.sequence).to(torch::kFloat), frequencies);
    cos = register_buffer("cos", torch::cos(angles));
    sin = register_buffer("sin", torch::sin(angles));
    mask = register_buffer("mask", torch::full({s.sequence, s.sequence}, -INFINITY).triu(1));
    torch::NoGradGuard none;
    for (const Tensor& weight : parameters()) {
      if (weight.dim() == 2) weight.normal_(0, 0.02);
    }
  }
  Tensor forward(const Tensor& tokens) {
    Tensor x = embedding(tokens);
    for (Block& block : blocks) x = block(x, cos, sin, mask);
    return torch::linear(norm(x), embedding->weight);
  }

  nn::Embedding embedding;
  std::vector<Block> blocks;
  RmsNorm norm;
  Tensor cos, sin, mask;
};
TORCH_MODULE(Llama);

double ProcessorSeconds() {
  timespec now = {};
  ::clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

double Median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

torch::optim::AdamW Optimizer(const std::vector<Tensor>& parameters) {
  std::vector<Tensor> matrices, vectors;
  for (const Tensor& weight : parameters)
    (weight.dim() == 2 ? matrices : vectors).push_back(weight);
  const auto group = [](const std::vector<Tensor>& weights, double decay) {
    auto options = std::make_unique<torch::optim::AdamWOptions>(1e-3);
    options->betas({0.9, 0.95}).weight_decay(decay);
    return torch::optim::OptimizerParamGroup(weights, std::move(options));
  };
  return torch::optim::AdamW(
      std::vector<torch::optim::OptimizerParamGroup>{group(matrices, 0.1), group(vectors, 0)});
}

void Run(const Shape& s, bool bf16, int threads, int steps) {
  at::set_num_interop_threads(1);
  at::set_num_threads(threads);
  torch::manual_seed(1);
  Llama model(s);
  if (bf16) model->to(torch::kBFloat16);
  torch::optim::AdamW optimizer = Optimizer(model->parameters());
  std::vector<double> wall, processor;
  double last = 0;
  for (int step = 0; step <= steps; ++step) {
    const Tensor tokens = torch::randint(s.vocabulary, {s.sequences, s.sequence + 1});
    const auto start = std::chrono::steady_clock::now();
    const double used = ProcessorSeconds();
    optimizer.zero_grad();
    const Tensor loss = nn::functional::cross_entropy(
        model(tokens.slice(1, 0, s.sequence)).view({-1, s.vocabulary}),
        tokens.slice(1, 1).reshape({-1}));
    loss.backward();
    nn::utils::clip_grad_norm_(model->parameters(), 1.0);
    optimizer.step();
    last = loss.item<double>();
    const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - start;
    if (step == 0) continue;
    wall.push_back(taken.count());
    processor.push_back(ProcessorSeconds() - used);
  }
  const auto tokens = static_cast<double>(s.sequence * s.sequences);
  rusage usage = {};
  ::getrusage(RUSAGE_SELF, &usage);
  std::printf(
      "{\"engine\": \"libtorch %s\", \"precision\": \"%s\", \"threads\": %d, \"steps\": %d, "
      "\"tokens_per_s\": %.1f, \"processor_tokens_per_s\": %.1f, \"loss\": %.4f, "
      "\"peak_rss_bytes\": %lld}\n",
      TORCH_VERSION, bf16 ? "bf16" : "f32", threads, steps, tokens / Median(wall),
      tokens * threads / Median(processor), last, 1024LL * usage.ru_maxrss);
}

}  // namespace

int main(int argc, char** argv) {
  const std::string precision = argc > 8 ? argv[8] : "";
  if (argc != 11 || (precision != "f32" && precision != "bf16")) {
    std::fputs(
        "usage: torch_training DIM LAYERS HEADS FFN VOCABULARY SEQUENCE SEQUENCES f32|bf16 THREADS "
        "STEPS\n",
        stderr);
    return 2;
  }
  const auto number = [&](int i) { return std::strtoll(argv[i], nullptr, 10); };
  const Shape shape = {number(1), number(2), number(3), number(4), number(5), number(6), number(7)};
  const auto threads = static_cast<int>(number(9)), steps = static_cast<int>(number(10));
  if (std::min({shape.dim, shape.layers, shape.heads, shape.ffn, shape.vocabulary, shape.sequence,
                shape.sequences}) < 1 ||
      shape.dim % (2 * shape.heads) != 0 || threads < 1 || steps < 1) {
    std::fputs("torch_training: sizes are above 0, and heads have an even part of DIM each\n",
               stderr);
    return 2;
  }
  Run(shape, precision == "bf16", threads, steps);
  return 0;
}
