#include "model/model.h"

#include <algorithm>
#include <utility>

#include "base/check.h"
#include "base/strings.h"
#include "model/weights.h"
#include "quant/packed.h"

namespace edgewise {

namespace {

// Moves the rows that `linear` points at into memory of their own, packed for the kernels.
Status Pack(DType type, ThreadPool* pool, Linear* linear) {
  const size_t bytes = PackedBytes(type, linear->rows, linear->columns);
  EW_TRY(linear->packed, Tensor::Allocate(DType::kI8, Shape{bytes}));
  std::byte* out = linear->packed.mutable_data();
  const auto pack = [&](size_t begin, size_t end, int) {
    for (size_t group = begin; group < end; ++group) {
      const size_t row = group * kPackedRows;
      PackGroup(type, linear->data + row * linear->row_bytes, linear->row_bytes,
                std::min(kPackedRows, linear->rows - row), linear->columns,
                out + row * linear->row_bytes);
    }
  };
  pool->ParallelFor((linear->rows + kPackedRows - 1) / kPackedRows, 4, pack);
  linear->data = out;
  return Ok{};
}

}  // namespace

const TensorView& Model::Impl::View(std::string_view name) const {
  const auto index = checkpoint.Find(name);
  EW_CHECK(index.has_value());  // Checkpoint::Open found every tensor that the spec needs
  return tensors[*index].view();
}

std::vector<float> Model::Impl::Floats(std::string_view name) const {
  const TensorView& view = View(name);
  std::vector<float> values(view.shape.elements());
  view.DecodeRow(0, values.data());
  return values;
}

Result<Linear> Model::Impl::Rows(const std::string& name, size_t first, size_t rows,
                                 ThreadPool* pool) const {
  const TensorView& view = View(name);
  Linear linear;
  linear.kernel = kernels::Active().linear[static_cast<size_t>(view.dtype)];
  if (!linear.kernel.run) {
    return MakeError(Code::kUnsupported, "%s: tensor %s is %s, for which there is no kernel",
                     checkpoint.path().c_str(), name.c_str(), Info(view.dtype).name);
  }
  linear.row_bytes = view.row_bytes();
  linear.data = view.row(first);
  linear.rows = rows;
  linear.columns = view.shape.columns();
  if (IsPacked(view.dtype)) {
    EW_TRY(Pack(view.dtype, pool, &linear).In(name));
    checkpoint.DropPages(
        *checkpoint.Find(name));  // so that never more than a tensor is there twice
  }
  return linear;
}

Result<Linear> Model::Impl::LayerRows(const std::string& stem, size_t first, size_t rows, bool bias,
                                      ThreadPool* pool) const {
  EW_TRY(Linear linear, Rows(stem + ".weight", first, rows, pool));
  if (bias) {
    const std::vector<float> all = Floats(stem + ".bias");
    const auto begin = all.begin() + static_cast<std::ptrdiff_t>(first);
    linear.bias.assign(begin, begin + static_cast<std::ptrdiff_t>(rows));
  }
  return linear;
}

Status Model::Impl::LoadTensors() {
  const size_t count = checkpoint.tensors().size();
  tensors.reserve(count);
  for (size_t i = 0; i < count; ++i) {
    EW_TRY(Tensor tensor, checkpoint.Load(i));
    if (tensor.owned()) checkpoint.DropPages(i);
    weight_bytes += tensor.view().bytes;
    tensors.push_back(std::move(tensor));
  }
  return Ok{};
}

Status Model::Impl::BindLayer(uint32_t index, LayerWeights* layer, ThreadPool* pool) {
  const ModelSpec& s = spec();
  const std::string prefix = Format("blk.%u.", index);
  const size_t q = s.q_dim(), kv = s.kv_dim();
  layer->attention_norm = Floats(prefix + "attn_norm.weight");
  if (s.fused_qkv) {
    const std::string stem = prefix + "attn_qkv";
    EW_TRY(layer->q, LayerRows(stem, 0, q, s.qkv_bias, pool));
    EW_TRY(layer->k, LayerRows(stem, q, kv, s.qkv_bias, pool));
    EW_TRY(layer->v, LayerRows(stem, q + kv, kv, s.qkv_bias, pool));
  } else {
    EW_TRY(layer->q, LayerRows(prefix + "attn_q", 0, q, s.qkv_bias, pool));
    EW_TRY(layer->k, LayerRows(prefix + "attn_k", 0, kv, s.qkv_bias, pool));
    EW_TRY(layer->v, LayerRows(prefix + "attn_v", 0, kv, s.qkv_bias, pool));
  }
  if (s.qk_norm) {
    layer->q_norm = Floats(prefix + "attn_q_norm.weight");
    layer->k_norm = Floats(prefix + "attn_k_norm.weight");
  }
  EW_TRY(layer->output, LayerRows(prefix + "attn_output", 0, s.dim, s.output_bias, pool));
  layer->feed_forward_norm = Floats(prefix + "ffn_norm.weight");
  const std::string gate = prefix + (s.fused_gate_up ? "ffn_up" : "ffn_gate");
  EW_TRY(layer->gate, LayerRows(gate, 0, s.ffn_dim, false, pool));
  EW_TRY(layer->up,
         LayerRows(prefix + "ffn_up", s.fused_gate_up ? s.ffn_dim : 0, s.ffn_dim, false, pool));
  EW_TRY(layer->down, LayerRows(prefix + "ffn_down", 0, s.dim, false, pool));
  if (s.post_norms) {
    layer->post_attention_norm = Floats(prefix + "post_attention_norm.weight");
    layer->post_feed_forward_norm = Floats(prefix + "post_ffw_norm.weight");
  }
  return Ok{};
}

// The rows of block formats are in packed memory now: frees those that the checkpoint built, but
// for the embedding, whose rows are looked up.
void Model::Impl::ReleasePacked() {
  for (size_t i = 0; i < tensors.size(); ++i) {
    const TensorView& view = tensors[i].view();
    if (!IsPacked(view.dtype)) continue;
    if (view.data != embedding.data) tensors[i] = Tensor();
  }
}

Status Model::Impl::Bind(ThreadPool* pool) {
  EW_TRY(LoadTensors());
  const ModelSpec& s = spec();
  embedding = View("token_embd.weight");
  output_norm = Floats("output_norm.weight");
  EW_TRY(logits,
         Rows(s.tied_embeddings ? "token_embd.weight" : "output.weight", 0, s.vocab_size, pool));
  layers.resize(s.n_layers);
  for (uint32_t i = 0; i < s.n_layers; ++i) EW_TRY(BindLayer(i, &layers[i], pool));
  ReleasePacked();
  return Ok{};
}

Result<std::unique_ptr<Model>> Model::Load(Checkpoint checkpoint, ThreadPool* pool) {
  auto impl = std::make_unique<Impl>(std::move(checkpoint));
  EW_TRY(impl->Bind(pool));
  return std::unique_ptr<Model>(new Model(std::move(impl)));
}

Model::Model(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Model::~Model() = default;

const ModelSpec& Model::spec() const { return impl_->spec(); }
const Checkpoint& Model::checkpoint() const { return impl_->checkpoint; }
uint64_t Model::weight_bytes() const { return impl_->weight_bytes; }

uint64_t Model::bytes_per_token() const {
  if (spec().tied_embeddings) return weight_bytes();
  return weight_bytes() - impl_->embedding.bytes + impl_->embedding.row_bytes();
}

}  // namespace edgewise
