#include "model/model.h"

#include <algorithm>
#include <utility>

#include "base/check.h"
#include "base/strings.h"
#include "model/weights.h"
#include "quant/packed.h"

namespace edgewise {

// Binds every tensor of the checkpoint to its place in the model.
class Model::Impl::Loader {
 public:
  Loader(Impl* model, ThreadPool* pool) : model_(*model), pool_(pool) {}
  Status Load();
  Status BindLayer(uint32_t index, LayerWeights* layer);

 private:
  Status LoadTensors();
  void ReleasePacked();
  const TensorView& View(std::string_view name) const;
  std::vector<float> Floats(std::string_view name) const;
  // Rows [first, first + rows) of tensor `name`.
  Result<Linear> Rows(const std::string& name, size_t first, size_t rows);
  // The same with the bias of the layer's tensor of this stem, where there is one.
  Result<Linear> LayerRows(const std::string& stem, size_t first, size_t rows, bool bias);
  Status Pack(const TensorView& view, size_t first, Linear* linear);

  Impl& model_;
  ThreadPool* pool_;
};

const TensorView& Model::Impl::Loader::View(std::string_view name) const {
  const auto index = model_.checkpoint.Find(name);
  EW_CHECK(index.has_value());  // Checkpoint::Open found every tensor that the spec needs
  return model_.tensors[*index].view();
}

std::vector<float> Model::Impl::Loader::Floats(std::string_view name) const {
  const TensorView& view = View(name);
  std::vector<float> values(view.shape.elements());
  view.DecodeRow(0, values.data());
  return values;
}

// Packs rows from `first` on, as many as `linear` has, into memory of its own.
Status Model::Impl::Loader::Pack(const TensorView& view, size_t first, Linear* linear) {
  const size_t bytes = PackedBytes(view.dtype, linear->rows, linear->columns);
  EW_TRY(linear->packed, Tensor::AllocateUninitialized(DType::kI8, Shape{bytes}));
  std::byte* out = linear->packed.mutable_data();
  const auto pack = [&](size_t begin, size_t end, int) {
    for (size_t row = begin * kPackedRows; row < std::min(end * kPackedRows, linear->rows);
         row += kPackedRows) {
      PackGroup(view.dtype, view.row(first + row), linear->row_bytes,
                std::min(kPackedRows, linear->rows - row), linear->columns,
                out + row * linear->row_bytes);
    }
  };
  pool_->ParallelFor(PaddedRows(linear->rows) / kPackedRows, 4, pack);
  linear->data = out;
  model_.copied_bytes += bytes;
  return Ok{};
}

Result<Linear> Model::Impl::Loader::Rows(const std::string& name, size_t first, size_t rows) {
  const TensorView& view = View(name);
  const std::string& path = model_.checkpoint.path();
  Linear linear;
  linear.kernel = kernels::Active().linear[static_cast<size_t>(view.dtype)];
  if (!linear.kernel.run) {
    return MakeError(Code::kUnsupported, "%s: tensor %s is %s, for which there is no kernel",
                     path.c_str(), name.c_str(), Info(view.dtype).name);
  }
  linear.row_bytes = view.row_bytes();
  linear.rows = rows;
  linear.columns = view.shape.columns();
  if (view.layout == TensorLayout::kPacked) {
    if (first % kPackedRows != 0) {
      return MakeError(Code::kBadData,
                       "%s: tensor %s is packed, but a layer begins at its row %zu, which is no "
                       "multiple of %zu; `edgewise unpack` gives a file that runs",
                       path.c_str(), name.c_str(), first, kPackedRows);
    }
    linear.data = view.data + first * linear.row_bytes;
  } else if (IsPacked(view.dtype)) {
    EW_TRY(Pack(view, first, &linear).In(name));
    // So that never more than a tensor is there twice.
    model_.checkpoint.DropPages(*model_.checkpoint.Find(name));
  } else {
    linear.data = view.row(first);
  }
  return linear;
}

Result<Linear> Model::Impl::Loader::LayerRows(const std::string& stem, size_t first, size_t rows,
                                              bool bias) {
  EW_TRY(Linear linear, Rows(stem + ".weight", first, rows));
  if (bias) {
    const std::vector<float> all = Floats(stem + ".bias");
    const auto begin = all.begin() + static_cast<std::ptrdiff_t>(first);
    linear.bias.assign(begin, begin + static_cast<std::ptrdiff_t>(rows));
  }
  return linear;
}

Status Model::Impl::Loader::LoadTensors() {
  const size_t count = model_.checkpoint.tensors().size();
  model_.tensors.reserve(count);
  for (size_t i = 0; i < count; ++i) {
    EW_TRY(Tensor tensor, model_.checkpoint.Load(i));
    if (tensor.owned()) model_.checkpoint.DropPages(i);
    model_.weight_bytes += tensor.view().bytes;
    model_.tensors.push_back(std::move(tensor));
  }
  return Ok{};
}

Status Model::Impl::Loader::BindLayer(uint32_t index, LayerWeights* layer) {
  const ModelSpec& s = model_.spec();
  const std::string prefix = Format("blk.%u.", index);
  const size_t q = s.q_dim(), kv = s.kv_dim();
  layer->attention_norm = Floats(prefix + "attn_norm.weight");
  if (s.fused_qkv) {
    const std::string stem = prefix + "attn_qkv";
    EW_TRY(layer->q, LayerRows(stem, 0, q, s.qkv_bias));
    EW_TRY(layer->k, LayerRows(stem, q, kv, s.qkv_bias));
    EW_TRY(layer->v, LayerRows(stem, q + kv, kv, s.qkv_bias));
  } else {
    EW_TRY(layer->q, LayerRows(prefix + "attn_q", 0, q, s.qkv_bias));
    EW_TRY(layer->k, LayerRows(prefix + "attn_k", 0, kv, s.qkv_bias));
    EW_TRY(layer->v, LayerRows(prefix + "attn_v", 0, kv, s.qkv_bias));
  }
  if (s.qk_norm) {
    layer->q_norm = Floats(prefix + "attn_q_norm.weight");
    layer->k_norm = Floats(prefix + "attn_k_norm.weight");
  }
  EW_TRY(layer->output, LayerRows(prefix + "attn_output", 0, s.dim, s.output_bias));
  layer->feed_forward_norm = Floats(prefix + "ffn_norm.weight");
  const std::string gate = prefix + (s.fused_gate_up ? "ffn_up" : "ffn_gate");
  EW_TRY(layer->gate, LayerRows(gate, 0, s.ffn_dim, false));
  EW_TRY(layer->up,
         LayerRows(prefix + "ffn_up", s.fused_gate_up ? s.ffn_dim : 0, s.ffn_dim, false));
  EW_TRY(layer->down, LayerRows(prefix + "ffn_down", 0, s.dim, false));
  if (s.post_norms) {
    layer->post_attention_norm = Floats(prefix + "post_attention_norm.weight");
    layer->post_feed_forward_norm = Floats(prefix + "post_ffw_norm.weight");
  }
  return Ok{};
}

// Rows of block formats have been copied: frees those that the checkpoint built, but for the
// embedding, whose rows are looked up.
void Model::Impl::Loader::ReleasePacked() {
  for (Tensor& tensor : model_.tensors) {
    const TensorView& view = tensor.view();
    if (!IsPacked(view.dtype) || view.layout == TensorLayout::kPacked) continue;
    if (view.data != model_.embedding.data) tensor = Tensor();
  }
}

Status Model::Impl::Loader::Load() {
  EW_TRY(LoadTensors());
  const ModelSpec& s = model_.spec();
  model_.embedding = View("token_embd.weight");
  model_.output_norm = Floats("output_norm.weight");
  EW_TRY(model_.logits,
         Rows(s.tied_embeddings ? "token_embd.weight" : "output.weight", 0, s.vocab_size));
  model_.layers.resize(s.n_layers);
  for (uint32_t i = 0; i < s.n_layers; ++i) EW_TRY(BindLayer(i, &model_.layers[i]));
  ReleasePacked();
  return Ok{};
}

Status Model::Impl::BindFloatLayer(uint32_t layer, ThreadPool* pool) {
  return Loader(this, pool).BindLayer(layer, &layers[layer]);
}

Result<std::unique_ptr<Model>> Model::Load(Checkpoint checkpoint, ThreadPool* pool) {
  auto impl = std::make_unique<Impl>(std::move(checkpoint));
  EW_TRY(Impl::Loader(impl.get(), pool).Load());
  return std::unique_ptr<Model>(new Model(std::move(impl)));
}

Model::Model(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Model::~Model() = default;

const ModelSpec& Model::spec() const { return impl_->spec(); }
const Checkpoint& Model::checkpoint() const { return impl_->checkpoint; }
uint64_t Model::weight_bytes() const { return impl_->weight_bytes; }
uint64_t Model::copied_bytes() const { return impl_->copied_bytes; }

uint64_t Model::bytes_per_token() const {
  if (spec().tied_embeddings) return weight_bytes();
  return weight_bytes() - impl_->embedding.bytes + impl_->embedding.row_bytes();
}

}  // namespace edgewise
