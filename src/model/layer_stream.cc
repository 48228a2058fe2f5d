#include "model/layer_stream.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "base/check.h"
#include "base/strings.h"
#include "model/weights.h"

namespace edgewise {
namespace {

Result<Tensor> DecodeTensor(const TensorView& view, ThreadPool* pool) {
  EW_TRY(Tensor floats, Tensor::AllocateUninitialized(DType::kF32, view.shape));
  const size_t columns = view.shape.columns();
  float* values = reinterpret_cast<float*>(floats.mutable_data());
  pool->ParallelFor(view.shape.rows(), 64, [&](size_t begin, size_t end, int) {
    for (size_t row = begin; row < end; ++row) view.DecodeRow(row, values + row * columns);
  });
  return floats;
}

}  // namespace

LinearInput InputOf(std::string_view stem) {
  if (stem == "attn_output") return LinearInput::kAttnOutput;
  if (stem == "ffn_gate" || stem == "ffn_up") return LinearInput::kGateUp;
  if (stem == "ffn_down") return LinearInput::kDown;
  return LinearInput::kQkv;
}

struct LayerStream::Impl {
  Impl(const Checkpoint& checkpoint, ThreadPool* p)
      : model(checkpoint), pool(p), pass(model, p, kMaxStep) {}
  Status Open(uint32_t context);
  Status Decode(size_t index);

  Model::Impl model;  // of its layers only the loaded one is bound
  ThreadPool* pool;
  ForwardPass pass;
  uint32_t context = 0;
  std::optional<uint32_t> loaded;
  std::optional<KvCache> cache;  // of the loaded layer
  std::vector<LayerMatrix> matrices;
};

Status LayerStream::Impl::Open(uint32_t longest) {
  context = longest;
  const Checkpoint& checkpoint = model.checkpoint;
  model.tensors.resize(checkpoint.tensors().size());
  model.layers.resize(model.spec().n_layers);
  for (const char* name : {"token_embd.weight", "output_norm.weight"}) {
    const auto index = checkpoint.Find(name);
    EW_CHECK(index.has_value());  // Checkpoint::Open found every tensor that the spec needs
    EW_TRY(model.tensors[*index], checkpoint.Load(*index));
    const TensorView& view = model.tensors[*index].view();
    if (name == std::string_view("token_embd.weight")) {
      model.embedding = view;
    } else {
      model.output_norm.resize(view.shape.elements());
      view.DecodeRow(0, model.output_norm.data());
    }
  }
  return Ok{};
}

Status LayerStream::Impl::Decode(size_t index) {
  const Checkpoint& checkpoint = model.checkpoint;
  EW_TRY(const Tensor stored, checkpoint.Load(index));
  EW_TRY(model.tensors[index], DecodeTensor(stored.view(), pool));
  checkpoint.DropPages(index);
  return Ok{};
}

LayerStream::LayerStream(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
LayerStream::LayerStream(LayerStream&&) noexcept = default;
LayerStream& LayerStream::operator=(LayerStream&&) noexcept = default;
LayerStream::~LayerStream() = default;

Result<LayerStream> LayerStream::Create(const Checkpoint& checkpoint, uint32_t context,
                                        ThreadPool* pool) {
  auto impl = std::make_unique<Impl>(checkpoint, pool);
  EW_TRY(impl->Open(context));
  return LayerStream(std::move(impl));
}

const ModelSpec& LayerStream::spec() const { return impl_->model.spec(); }
std::span<const LayerMatrix> LayerStream::matrices() const { return impl_->matrices; }

void LayerStream::Unload() {
  Impl& s = *impl_;
  if (!s.loaded) return;
  const auto tensors = s.model.checkpoint.tensors();
  const std::string prefix = Format("blk.%u.", *s.loaded);
  for (size_t i = 0; i < tensors.size(); ++i) {
    if (tensors[i].name.starts_with(prefix)) s.model.tensors[i] = Tensor();
  }
  s.model.layers[*s.loaded] = LayerWeights();
  s.cache.reset();
  s.loaded.reset();
  s.matrices.clear();
}

Status LayerStream::Load(uint32_t layer) {
  Impl& s = *impl_;
  const auto tensors = s.model.checkpoint.tensors();
  Unload();
  const std::string prefix = Format("blk.%u.", layer);
  for (size_t i = 0; i < tensors.size(); ++i) {
    if (tensors[i].name.starts_with(prefix)) EW_TRY(s.Decode(i).In(tensors[i].name));
  }
  for (const std::string_view stem : kLinearStems) {
    const std::string name = prefix + std::string(stem) + ".weight";
    const auto i = s.model.checkpoint.Find(name);
    if (!i) continue;
    s.matrices.push_back({*i, name, InputOf(stem),
                          reinterpret_cast<float*>(s.model.tensors[*i].mutable_data()),
                          tensors[*i].shape.rows(), tensors[*i].shape.columns()});
  }
  EW_TRY(s.model.BindFloatLayer(layer, s.pool));
  EW_TRY(s.cache, KvCache::Create(spec(), s.context, kernels::KvFormat::kF32, layer, layer + 1));
  s.loaded = layer;
  return Ok{};
}

Status LayerStream::Embed(std::span<const int32_t> tokens, float* x) {
  const ModelSpec& spec = impl_->model.spec();
  for (size_t i = 0; i < tokens.size(); ++i) {
    const int32_t token = tokens[i];
    if (token < 0 || static_cast<uint32_t>(token) >= spec.vocab_size) {
      return MakeError(Code::kInvalidArgument, "token id %d is outside the vocabulary of %u", token,
                       spec.vocab_size);
    }
    float* row = x + i * spec.dim;
    impl_->model.embedding.DecodeRow(static_cast<uint64_t>(token), row);
    if (spec.embedding_scale != 1.0f) {
      kernels::Active().scale(spec.embedding_scale, row, spec.dim);
    }
  }
  return Ok{};
}

Status LayerStream::Run(float* x, size_t n, LinearTap tap) {
  Impl& s = *impl_;
  EW_CHECK(s.loaded && n <= s.context);
  s.cache->Clear();
  for (size_t at = 0; at < n; at += kMaxStep) {
    const size_t part = std::min<size_t>(n - at, kMaxStep);
    EW_TRY(s.pass.RunLayer(*s.loaded, &*s.cache, part, x + at * spec().dim, tap));
  }
  return Ok{};
}

void LayerStream::Normalize(const float* x, size_t n, float* y) const {
  const ModelSpec& spec = impl_->model.spec();
  for (size_t i = 0; i < n; ++i) {
    kernels::Active().rms_norm(x + i * spec.dim, impl_->model.output_norm.data(), y + i * spec.dim,
                               spec.dim, spec.norm_eps);
  }
}

}  // namespace edgewise
