// Writes a llama-shaped F16 GGUF of any size with random weights and a working SentencePiece
// vocabulary, for measuring speed and memory. The same options give the same bytes for any number
// of threads, and a tensor's values depend only on its name, its shape and the seed: a model of
// fewer layers is the beginning of a larger one.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/half.h"
#include "base/rng.h"
#include "base/strings.h"
#include "base/thread_pool.h"
#include "engine/vocab_metadata.h"
#include "formats/gguf.h"

namespace edgewise {
namespace {

struct Options {
  std::string output;
  uint32_t layers = 22, dim = 2048, heads = 32, kv_heads = 4, ffn = 5632, vocab = 32000,
           context = 2048;
  uint32_t tied = 0;             // 1: the embedding is the output matrix as well
  uint32_t deciding_layers = 0;  // layers after these add next to nothing; 0: all decide
  uint64_t seed = 1;
};

constexpr int kOutlierColumns = 4;
constexpr double kOutlierFactor = 8;
constexpr double kMutedFactor = 1e-3;
constexpr size_t kChunkValues = 1u << 20;

Result<Options> ParseOptions(int argc, char** argv) {
  Options options;
  if (argc < 2 || argv[1][0] == '-') {
    return MakeError(Code::kInvalidArgument, "the first argument is the output file");
  }
  options.output = argv[1];
  struct Row {
    std::string_view name;
    uint32_t* value;
  };
  const Row rows[] = {{"--layers", &options.layers},
                      {"--dim", &options.dim},
                      {"--heads", &options.heads},
                      {"--kv-heads", &options.kv_heads},
                      {"--ffn", &options.ffn},
                      {"--vocab", &options.vocab},
                      {"--context", &options.context},
                      {"--tied", &options.tied},
                      {"--deciding-layers", &options.deciding_layers}};
  for (int i = 2; i < argc; i += 2) {
    const std::string_view name = argv[i];
    if (i + 1 >= argc) return MakeError(Code::kInvalidArgument, "%s has no value", argv[i]);
    EW_TRY(const int64_t value, ParseInt(argv[i + 1]));
    if (value < 0 || value > UINT32_MAX)
      return MakeError(Code::kInvalidArgument, "%s %s: out of range", argv[i], argv[i + 1]);
    bool known = name == "--seed";
    if (known) options.seed = static_cast<uint64_t>(value);
    for (const Row& row : rows) {
      if (row.name != name) continue;
      *row.value = static_cast<uint32_t>(value);
      known = true;
    }
    if (!known) return MakeError(Code::kInvalidArgument, "unknown option %s", argv[i]);
  }
  for (const uint32_t size : {options.layers, options.dim, options.heads, options.kv_heads,
                              options.ffn, options.context}) {
    if (size == 0) return MakeError(Code::kInvalidArgument, "sizes must be 1 or more");
  }
  if (options.dim % options.heads != 0 || options.heads % options.kv_heads != 0 ||
      options.vocab < 400) {
    return MakeError(
        Code::kInvalidArgument,
        "heads must divide dim, kv-heads must divide heads, vocab must be 400 or more");
  }
  return options;
}

// Control and byte tokens, then all words of one letter, of two, ... with and without the mark of a
// word's beginning.
Vocab MakeVocab(uint32_t size) {
  Vocab vocab;
  vocab.kind = TokenizerKind::kSpm;
  const auto add = [&vocab](std::string text, TokenType type) {
    const bool normal = type == TokenType::kNormal;
    vocab.scores.push_back(normal ? 258.0f - static_cast<float>(vocab.tokens.size()) : 0.0f);
    vocab.tokens.push_back(std::move(text));
    vocab.types.push_back(type);
  };
  add("<unk>", TokenType::kUnknown);
  add("<s>", TokenType::kControl);
  add("</s>", TokenType::kControl);
  for (int byte = 0; byte < 256; ++byte)
    add(Format("<0x%02X>", static_cast<unsigned>(byte)), TokenType::kByte);
  add("\u2581", TokenType::kNormal);
  std::vector<std::string> words = {""};
  while (vocab.tokens.size() < size) {
    std::vector<std::string> longer;
    for (const std::string& word : words) {
      for (char letter = 'a'; letter <= 'z'; ++letter) longer.push_back(word + letter);
    }
    words = std::move(longer);
    for (const char* begin : {"\u2581", ""}) {
      for (const std::string& word : words) {
        if (vocab.tokens.size() < size) add(begin + word, TokenType::kNormal);
      }
    }
  }
  vocab.bos = 1;
  vocab.eos = 2;
  vocab.unk = 0;
  vocab.add_bos = true;
  AddKnownEndTokens(&vocab);
  return vocab;
}

Metadata MakeMetadata(const Options& options) {
  Metadata metadata;
  metadata.Set("general.architecture", std::string("llama"));
  metadata.Set("general.type", std::string("model"));
  metadata.Set("general.name", Format("synthetic-%ux%u", options.layers, options.dim));
  metadata.Set("general.file_type", uint32_t{1});
  metadata.Set("general.quantization_version", uint32_t{2});
  metadata.Set("llama.block_count", options.layers);
  metadata.Set("llama.context_length", options.context);
  metadata.Set("llama.embedding_length", options.dim);
  metadata.Set("llama.feed_forward_length", options.ffn);
  metadata.Set("llama.attention.head_count", options.heads);
  metadata.Set("llama.attention.head_count_kv", options.kv_heads);
  metadata.Set("llama.attention.layer_norm_rms_epsilon", 1e-5f);
  metadata.Set("llama.rope.dimension_count", options.dim / options.heads);
  metadata.Set("llama.rope.freq_base", 10000.0f);
  metadata.Set("llama.vocab_size", options.vocab);
  AddVocabToMetadata(MakeVocab(options.vocab), &metadata);
  return metadata;
}

std::vector<GgufTensorDecl> MakeTensors(const Options& o) {
  const uint64_t dim = o.dim, kv = dim / o.heads * o.kv_heads;
  std::vector<GgufTensorDecl> tensors = {{"token_embd.weight", DType::kF16, {o.vocab, dim}}};
  for (uint32_t layer = 0; layer < o.layers; ++layer) {
    const auto add = [&](const char* name, DType type, const Shape& shape) {
      tensors.push_back({Format("blk.%u.%s.weight", layer, name), type, shape});
    };
    add("attn_norm", DType::kF32, {dim});
    add("attn_q", DType::kF16, {dim, dim});
    add("attn_k", DType::kF16, {kv, dim});
    add("attn_v", DType::kF16, {kv, dim});
    add("attn_output", DType::kF16, {dim, dim});
    add("ffn_norm", DType::kF32, {dim});
    add("ffn_gate", DType::kF16, {o.ffn, dim});
    add("ffn_up", DType::kF16, {o.ffn, dim});
    add("ffn_down", DType::kF16, {dim, o.ffn});
  }
  tensors.push_back({"output_norm.weight", DType::kF32, {dim}});
  if (o.tied == 0) tensors.push_back({"output.weight", DType::kF16, {o.vocab, dim}});
  return tensors;
}

// What a layer adds to the residual stream, in a layer that is not to decide.
bool IsMuted(const Options& options, const std::string& name) {
  if (options.deciding_layers == 0 || !name.starts_with("blk.")) return false;
  const bool adds = name.ends_with("attn_output.weight") || name.ends_with("ffn_down.weight");
  return adds && std::strtoul(name.c_str() + 4, nullptr, 10) >= options.deciding_layers;
}

uint64_t SeedOf(const Options& options, const std::string& name) {
  uint64_t hash = 0xcbf29ce484222325 ^ options.seed;  // FNV-1a
  for (const char c : name) hash = (hash ^ static_cast<uint8_t>(c)) * 0x100000001b3;
  return hash;
}

Status WriteOnes(const GgufTensorDecl& tensor, GgufWriter* writer) {
  const std::vector<float> ones(tensor.shape.elements(), 1.0f);
  return writer->Write(std::as_bytes(std::span(ones)));
}

// Gaussian weights of variance 1 / columns with a few columns that stand out, as in trained models.
Status WriteMatrix(const GgufTensorDecl& tensor, const Options& options, ThreadPool* pool,
                   GgufWriter* writer) {
  const uint64_t seed = SeedOf(options, tensor.name);
  const double size = IsMuted(options, tensor.name) ? kMutedFactor : 1.0;
  const uint64_t columns = tensor.shape.columns(), rows = tensor.shape.rows();
  std::vector<double> scale(columns, size / std::sqrt(static_cast<double>(columns)));
  Rng outliers(seed);
  for (int i = 0; i < kOutlierColumns; ++i) scale[outliers.Below(columns)] *= kOutlierFactor;
  const uint64_t step = std::max<uint64_t>(1, kChunkValues / columns);
  std::vector<uint16_t> chunk;
  for (uint64_t first = 0; first < rows; first += step) {
    const uint64_t count = std::min(step, rows - first);
    chunk.resize(count * columns);
    pool->ParallelFor(count, 1, [&](size_t begin, size_t end, int) {
      for (size_t row = begin; row < end; ++row) {
        Rng rng(seed + 1 + first + row);
        for (uint64_t column = 0; column < columns; ++column) {
          chunk[row * columns + column] =
              FloatToHalf(static_cast<float>(rng.Gaussian() * scale[column]));
        }
      }
    });
    EW_TRY(writer->Write(std::as_bytes(std::span(chunk))));
  }
  return Ok{};
}

Status Run(int argc, char** argv) {
  EW_TRY(const Options options, ParseOptions(argc, argv));
  const auto tensors = MakeTensors(options);
  EW_TRY(GgufWriter writer,
         GgufWriter::Create(options.output, true, MakeMetadata(options), tensors));
  ThreadPool pool(ThreadPool::AvailableCpus());
  uint64_t parameters = 0;
  for (const GgufTensorDecl& tensor : tensors) {
    parameters += tensor.shape.elements();
    if (tensor.dtype == DType::kF32) {
      EW_TRY(WriteOnes(tensor, &writer));
    } else {
      EW_TRY(WriteMatrix(tensor, options, &pool, &writer));
    }
  }
  EW_TRY(writer.Finish());
  std::printf("%s: %.3f billion parameters, %s\n", options.output.c_str(),
              static_cast<double>(parameters) / 1e9, FormatBytes(writer.total_bytes()).c_str());
  return Ok{};
}

}  // namespace
}  // namespace edgewise

int main(int argc, char** argv) {
  const auto status = edgewise::Run(argc, argv);
  if (status) return 0;
  std::fprintf(stderr,
               "make_synthetic_gguf: %s\n"
               "usage: make_synthetic_gguf OUT.gguf [--layers 22] [--dim 2048] [--heads 32] "
               "[--kv-heads 4] [--ffn 5632]\n"
               "                           [--vocab 32000] [--context 2048] [--seed 1] [--tied 0] "
               "[--deciding-layers 0]\n",
               status.error().message.c_str());
  return 2;
}
