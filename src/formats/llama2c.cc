#include "formats/llama2c.h"

#include <cstring>
#include <new>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "base/strings.h"

namespace edgewise {
namespace {

using U64 = unsigned long long;

constexpr uint32_t kMagic = 0x616b3432;  // "ak42" as a number
constexpr uint64_t kLegacyHeaderBytes = 7 * sizeof(int32_t);
constexpr uint64_t kHeaderBytes = 256;  // version 2

// What a part of the file holds for each layer, or once.
struct Part {
  const char* name;  // %u stands for the layer
  bool per_layer;
  Shape shape;
  bool skipped = false;  // present in the file, of no use
};

// Sizes are checked at every step; `ok` turns false when one overflows.
struct CheckedSize {
  uint64_t value = 0;
  bool ok = true;
  void AddProduct(uint64_t a, uint64_t b) {
    uint64_t product = 0;
    ok = ok && !MulOverflows(a, b, &product) && !AddOverflows(value, product, &value);
  }
};

Error BadHeader(const char* what, int64_t value) {
  return MakeError(Code::kBadData, "not a llama2.c checkpoint: its %s is %lld", what,
                   static_cast<long long>(value));
}

// Reads the seven integers that both versions have; a negative vocabulary marks an unshared
// classifier in version 0.
Result<Llama2cConfig> ReadConfig(ByteReader* reader, uint32_t version) {
  Llama2cConfig config;
  config.version = version;
  const std::pair<const char*, uint32_t*> fields[] = {{"dim", &config.dim},
                                                      {"hidden_dim", &config.hidden_dim},
                                                      {"n_layers", &config.n_layers},
                                                      {"n_heads", &config.n_heads},
                                                      {"n_kv_heads", &config.n_kv_heads},
                                                      {"vocab_size", &config.vocab_size},
                                                      {"seq_len", &config.seq_len}};
  for (const auto& [name, field] : fields) {
    EW_TRY(const auto raw, reader->Read<int32_t>());
    int64_t value = raw;
    if (version == 0 && field == &config.vocab_size) {
      config.shared_classifier = value > 0;
      value = value < 0 ? -value : value;
    }
    if (value <= 0) return BadHeader(name, raw);
    *field = static_cast<uint32_t>(value);
  }
  if (config.dim % config.n_heads != 0 || config.dim / config.n_heads % 2 != 0) {
    return MakeError(Code::kBadData,
                     "not a llama2.c checkpoint: dim %u is no even multiple of n_heads %u",
                     config.dim, config.n_heads);
  }
  if (config.n_heads % config.n_kv_heads != 0) {
    return MakeError(Code::kBadData,
                     "not a llama2.c checkpoint: n_heads %u is no multiple of n_kv_heads %u",
                     config.n_heads, config.n_kv_heads);
  }
  return config;
}

Result<Llama2cConfig> ReadHeader(ByteReader* reader, bool has_magic) {
  if (!has_magic) return ReadConfig(reader, 0);
  EW_TRY(reader->Read<uint32_t>());
  EW_TRY(const auto version, reader->Read<int32_t>());
  if (version != 2) {
    return MakeError(
        Code::kUnsupported,
        "llama2.c checkpoint of version %d; version 2 and the one without magic (0) are read",
        version);
  }
  EW_TRY(auto config, ReadConfig(reader, 2));
  EW_TRY(const auto shared, reader->Read<uint8_t>());
  if (shared > 1) return BadHeader("shared classifier flag", shared);
  config.shared_classifier = shared == 1;
  EW_TRY(const auto group, reader->Read<int32_t>());
  if (group <= 0) return BadHeader("group size", group);
  config.group_size = static_cast<uint32_t>(group);
  EW_TRY(reader->ReadBytes(kHeaderBytes - reader->offset()));
  return config;
}

// Lists the parts in file order. Every dimension is below 2^31, so that no shape overflows.
std::vector<Part> ListParts(const Llama2cConfig& c) {
  const uint64_t dim = c.dim;
  const uint64_t hidden = c.hidden_dim;
  const uint64_t head = c.dim / c.n_heads;
  const uint64_t kv = head * c.n_kv_heads;
  const Part attention_norm = {"model.layers.%u.input_layernorm.weight", true, {dim}};
  const Part mlp_norm = {"model.layers.%u.post_attention_layernorm.weight", true, {dim}};
  const Part final_norm = {"model.norm.weight", false, {dim}};
  const Part embedding = {"model.embed_tokens.weight", false, {c.vocab_size, dim}};
  const std::vector<Part> attention = {
      {"model.layers.%u.self_attn.q_proj.weight", true, {dim, dim}},
      {"model.layers.%u.self_attn.k_proj.weight", true, {kv, dim}},
      {"model.layers.%u.self_attn.v_proj.weight", true, {kv, dim}},
      {"model.layers.%u.self_attn.o_proj.weight", true, {dim, dim}},
  };
  const std::vector<Part> mlp = {
      {"model.layers.%u.mlp.gate_proj.weight", true, {hidden, dim}},
      {"model.layers.%u.mlp.down_proj.weight", true, {dim, hidden}},
      {"model.layers.%u.mlp.up_proj.weight", true, {hidden, dim}},
  };
  std::vector<Part> parts;
  const auto append = [&parts](const std::vector<Part>& more) {
    parts.insert(parts.end(), more.begin(), more.end());
  };
  if (c.version == 0) {
    append({embedding, attention_norm});
    append(attention);
    append({mlp_norm});
    append(mlp);
    append({final_norm, {"RoPE tables", false, {c.seq_len, head}, true}});
  } else {
    append({attention_norm, mlp_norm, final_norm, embedding});
    append(attention);
    append(mlp);
  }
  if (!c.shared_classifier) append({{"lm_head.weight", false, {c.vocab_size, dim}}});
  return parts;
}

// Norms stay float32 in version 2.
bool IsQuantized(const Llama2cConfig& config, const Part& part) {
  return config.version == 2 && part.shape.rank() == 2;
}

// Returns the exact length of a file with this header. Errors: kBadData.
Result<uint64_t> FileBytes(const Llama2cConfig& config, std::span<const Part> parts) {
  CheckedSize size;
  size.value = config.version == 0 ? kLegacyHeaderBytes : kHeaderBytes;
  for (const Part& part : parts) {
    const uint64_t copies = part.per_layer ? config.n_layers : 1;
    const uint64_t values = part.shape.elements();
    CheckedSize one;
    if (!IsQuantized(config, part)) {
      one.AddProduct(values, sizeof(float));
    } else if (values % config.group_size != 0) {
      return MakeError(Code::kBadData, "the %llu values of %s do not divide into groups of %u",
                       static_cast<U64>(values), part.name, config.group_size);
    } else {
      one.AddProduct(values, 1);
      one.AddProduct(values / config.group_size, sizeof(float));
    }
    size.ok = size.ok && one.ok;
    size.AddProduct(one.value, copies);
  }
  if (!size.ok) return MakeError(Code::kBadData, "not a llama2.c checkpoint: its sizes overflow");
  return size.value;
}

struct Checked {
  Llama2cConfig config;
  std::vector<Part> parts;
};

// Reads the header and proves that it explains the file's length.
Result<Checked> CheckFile(ByteReader* reader) {
  const uint64_t bytes = reader->remaining();
  ByteReader peek = *reader;
  const auto magic = peek.Read<uint32_t>();
  EW_TRY(auto config, ReadHeader(reader, magic && *magic == kMagic));
  std::vector<Part> parts = ListParts(config);
  EW_TRY(const uint64_t wanted, FileBytes(config, parts));
  if (wanted != bytes) {
    return MakeError(Code::kBadData,
                     "%s llama2.c checkpoint: dim %u, hidden_dim %u, %u layers, vocab_size %u need "
                     "%llu bytes, but the "
                     "file has %llu",
                     config.version == 0 ? "not a" : "a broken", config.dim, config.hidden_dim,
                     config.n_layers, config.vocab_size, static_cast<U64>(wanted),
                     static_cast<U64>(bytes));
  }
  return Checked{config, std::move(parts)};
}

std::string PartName(const Part& part, uint32_t layer) {
  std::string name = part.name;
  if (const size_t at = name.find("%u"); at != std::string::npos)
    name.replace(at, 2, std::to_string(layer));
  return name;
}

// Reads int8 values, then a float scale for each group of them, as run in the order of rows.
Result<Tensor> DecodeGroups(const Shape& shape, uint32_t group_size, ByteReader* reader) {
  const uint64_t count = shape.elements();
  EW_TRY(const auto codes, reader->ReadBytes(count));
  EW_TRY(const auto scales, reader->ReadBytes(count / group_size * sizeof(float)));
  EW_TRY(auto tensor, Tensor::Allocate(DType::kF32, shape));
  auto* values = reinterpret_cast<float*>(tensor.mutable_data());
  for (uint64_t group = 0; group < count / group_size; ++group) {
    float scale;
    std::memcpy(&scale, scales.data() + group * sizeof(float), sizeof(float));
    for (uint64_t i = group * group_size; i < (group + 1) * group_size; ++i) {
      values[i] = static_cast<float>(static_cast<int8_t>(codes[i])) * scale;
    }
  }
  return tensor;
}

}  // namespace

Result<Llama2cFile> Llama2cFile::Parse(std::span<const std::byte> bytes) {
  try {
    ByteReader reader(bytes);
    EW_TRY(const auto checked, CheckFile(&reader));
    Llama2cFile file;
    file.config_ = checked.config;
    for (const Part& part : checked.parts) {
      const uint32_t copies = part.per_layer ? checked.config.n_layers : 1;
      for (uint32_t layer = 0; layer < copies; ++layer) {
        TensorView view;
        if (IsQuantized(checked.config, part)) {
          EW_TRY(auto tensor, DecodeGroups(part.shape, checked.config.group_size, &reader));
          view = tensor.view();
          file.owned_.push_back(std::move(tensor));
        } else {
          EW_TRY(const auto data, reader.ReadBytes(part.shape.elements() * sizeof(float)));
          view = {DType::kF32, part.shape, data.data(), data.size()};
        }
        if (!part.skipped) file.tensors_.Add(PartName(part, layer), view);
      }
    }
    return file;
  } catch (const std::bad_alloc&) {
    return MakeError(Code::kOutOfMemory, "not enough memory for the checkpoint");
  }
}

Result<Llama2cFile> Llama2cFile::Open(const std::string& path) {
  EW_TRY(auto map, MappedFile::Open(path));
  auto shared = std::make_shared<MappedFile>(std::move(map));
  EW_TRY(auto file, Parse(shared->bytes()).In(path));
  file.map_ = std::move(shared);
  return file;
}

bool Llama2cFile::Matches(std::span<const std::byte> bytes) {
  ByteReader reader(bytes);
  ByteReader peek = reader;
  const auto magic = peek.Read<uint32_t>();
  return (magic && *magic == kMagic) || CheckFile(&reader).has_value();
}

}  // namespace edgewise
