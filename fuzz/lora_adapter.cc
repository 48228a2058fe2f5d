// Fuzzes the readers of adapters: the first byte chooses the kind of file, the rest is the file.
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <span>

#include "model/lora_file.h"

namespace {

using edgewise::LoraAdapter;
using edgewise::ModelSpec;
using edgewise::Result;

// The model that an adapter must fit; the corpus has one that does.
ModelSpec SmallSpec() {
  ModelSpec spec;
  spec.architecture = "llama";
  spec.n_layers = 1;
  spec.dim = 8;
  spec.n_heads = spec.n_kv_heads = 2;
  spec.head_dim = 4;
  spec.ffn_dim = 12;
  spec.vocab_size = 16;
  spec.rope.kind = edgewise::RopeKind::kInterleaved;
  spec.rope.rotary_dim = 4;
  return spec;
}

Result<LoraAdapter> Parse(bool peft, std::span<const std::byte> bytes) {
  if (peft) {
    edgewise::Json config;
    config.Set("peft_type", "LORA").Set("lora_alpha", 4);
    EW_TRY(const auto file, edgewise::SafetensorsFile::Parse(bytes));
    return edgewise::ParsePeftAdapter(config, file, SmallSpec());
  }
  EW_TRY(const auto file, edgewise::GgufFile::Parse(bytes));
  return edgewise::ParseGgufAdapter(file, SmallSpec());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const auto adapter = Parse(data[0] % 2 == 1, std::as_bytes(std::span(data, size)).subspan(1));
  if (!adapter) {
    if (adapter.error().message.empty()) std::abort();
    return 0;
  }
  for (const edgewise::LoraPair& pair : adapter->pairs) {
    if (pair.a.size() != pair.rank * pair.in || pair.b.size() != pair.out * pair.rank) std::abort();
    for (const float x : pair.a) {
      if (!std::isfinite(x)) std::abort();
    }
  }
  return 0;
}
