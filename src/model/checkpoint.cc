#include "model/checkpoint.h"

#include <algorithm>
#include <cstring>
#include <deque>
#include <filesystem>
#include <unordered_map>
#include <unordered_set>
#include <utility>

#include "base/check.h"
#include "base/file.h"
#include "base/strings.h"
#include "formats/gguf.h"
#include "formats/hf_folder.h"
#include "formats/llama2c.h"
#include "formats/quantized_linear.h"
#include "model/arch/arch.h"
#include "model/arch/keys.h"
#include "model/arch/tensors.h"
#include "model/hf_layout.h"
#include "model/rope.h"

namespace edgewise {
namespace {

// How a tensor comes out of its source.
struct Source {
  TensorView view;  // of a quantized matrix, and of one without values yet, only type and shape
  const QuantizedMatrix* quantized = nullptr;  // in Impl::quantized
  uint32_t permuted_heads = 0;
  bool add_one = false;
};

constexpr uint64_t kMaxConfigBytes = 1u << 20;

std::string BaseName(const std::string& path) {
  std::filesystem::path full = std::filesystem::path(path).lexically_normal();
  if (!full.has_filename()) full = full.parent_path();
  return full.filename().string();
}

// From Hugging Face's order to GGUF's. A bias is permuted value by value.
Result<Tensor> PermuteRows(const TensorView& view, uint32_t heads) {
  EW_CHECK(view.layout == TensorLayout::kRows);
  EW_TRY(Tensor result, Tensor::Allocate(view.dtype, view.shape));
  const uint64_t rows = view.shape[0];
  const size_t row_bytes = view.bytes / rows;
  for (uint64_t row = 0; row < rows; ++row) {
    std::memcpy(result.mutable_data() + row * row_bytes,
                view.data + HalvesRow(row, rows / heads) * row_bytes, row_bytes);
  }
  return result;
}

Result<Tensor> AddOne(const TensorView& view) {
  EW_TRY(Tensor result, Tensor::Allocate(DType::kF32, view.shape));
  auto* values = reinterpret_cast<float*>(result.mutable_data());
  view.Decode(0, view.shape.elements(), values);
  for (uint64_t i = 0; i < view.shape.elements(); ++i) values[i] += 1.0f;
  return result;
}

Result<Tensor> DecodeMatrix(const QuantizedMatrix& matrix, const Shape& shape) {
  EW_TRY(Tensor result, Tensor::AllocateUninitialized(DType::kF32, shape));
  matrix.Decode(reinterpret_cast<float*>(result.mutable_data()));
  return result;
}

Shape ShapeOf(const TensorPart& part, const Shape& whole) {
  const uint64_t rows = part.rows.empty() ? whole[0] : part.rows.size();
  if (whole.rank() == 1) return Shape{rows};
  return Shape{rows, part.columns.empty() ? whole.columns() : part.columns.size()};
}

Result<Tensor> TakePart(const TensorView& view, const TensorPart& part) {
  EW_CHECK(Info(view.dtype).block == 1 && view.shape.rank() <= 2);
  EW_TRY(Tensor result, Tensor::AllocateUninitialized(view.dtype, ShapeOf(part, view.shape)));
  const size_t size = Info(view.dtype).RowBytes(1);
  const size_t row_bytes = view.bytes / view.shape[0];
  const uint64_t rows = result.view().shape[0];
  std::byte* to = result.mutable_data();
  for (uint64_t r = 0; r < rows; ++r) {
    const std::byte* from = view.data + (part.rows.empty() ? r : part.rows[r]) * row_bytes;
    if (part.columns.empty()) {
      std::memcpy(to, from, row_bytes);
      to += row_bytes;
    }
    for (const uint32_t column : part.columns) {
      std::memcpy(to, from + column * size, size);
      to += size;
    }
  }
  return result;
}

bool IsInteger(DType type) {
  return type == DType::kI8 || type == DType::kI16 || type == DType::kI32 || type == DType::kI64;
}

// AutoGPTQ gives every layer that it quantizes a bias, of zeros where the model has none.
bool IsZeroBiasOfQuantized(const NamedTensor& tensor, const TensorIndex& found) {
  constexpr std::string_view kBias = ".bias";
  if (!tensor.name.ends_with(kBias)) return false;
  const std::string stem = tensor.name.substr(0, tensor.name.size() - kBias.size());
  if (!found.Find(stem + ".qweight")) return false;
  std::vector<float> values(tensor.view.shape.elements());
  tensor.view.Decode(0, values.size(), values.data());
  return std::all_of(values.begin(), values.end(), [](float v) { return v == 0; });
}

Error MissingTensor(const TensorIndex& found, const std::string& name) {
  const std::string codes = name.substr(0, name.rfind('.')) + ".qweight";
  if (found.Find(codes)) {
    return MakeError(Code::kBadData,
                     "tensor %s is missing, but %s is there: config.json lacks the "
                     "\"quantization_config\" that says how GPTQ or AWQ quantized it",
                     name.c_str(), codes.c_str());
  }
  return MakeError(Code::kBadData, "tensor %s is missing", name.c_str());
}

Error WrongShape(const std::string& name, const Shape& expected, const Shape& found) {
  return MakeError(Code::kBadData, "tensor %s has shape %s; %s is expected", name.c_str(),
                   found.ToString().c_str(), expected.ToString().c_str());
}

}  // namespace

struct Checkpoint::Impl {
  CheckpointKind kind = CheckpointKind::kGguf;
  std::string path;
  ModelSpec spec;
  Metadata metadata;
  std::vector<CheckpointTensor> tensors;
  std::vector<Source> sources;
  std::unordered_map<std::string_view, size_t> by_name;  // keys view tensors[i].name
  std::optional<GgufFile> gguf;
  std::optional<HfFolder> folder;
  std::optional<Llama2cFile> llama2c;
  std::vector<Tensor> made;  // from config.json
  std::optional<QuantizationConfig> quantization;
  std::deque<QuantizedMatrix> quantized;  // sources point to them

  Status OpenGguf();
  Status OpenFolder();
  Status OpenLlama2c();
  Status OpenConfig();
  void IndexNames();

 private:
  Status CheckLayerCount(const TensorIndex& found) const;
  Status Bind(const TensorIndex& found, bool add_one_to_norms, bool permute);
  Status AddMadeTensor(const NeededTensor& needed);
  Result<bool> AddQuantized(const TensorIndex& found, const NeededTensor& needed,
                            std::unordered_set<std::string>* known);
  void Add(std::string name, DType dtype, const Shape& shape, const Source& source);
  void WriteGeneralKeys(const Architecture& architecture);
  Result<const Architecture*> ReadConfig(const Json& config);
};

void Checkpoint::Impl::Add(std::string name, DType dtype, const Shape& shape,
                           const Source& source) {
  CheckpointTensor tensor{std::move(name), dtype, shape, source.view.layout};
  if (source.quantized) {
    tensor.stored_as = source.quantized->name();
    for (const NamedTensor& part : source.quantized->parts())
      tensor.stored_bytes += part.view.bytes;
  }
  tensors.push_back(std::move(tensor));
  sources.push_back(source);
}

// So that a wrong count in a header cannot make us build endless lists of names.
Status Checkpoint::Impl::CheckLayerCount(const TensorIndex& found) const {
  if (spec.n_layers <= found.all().size()) return Ok{};
  return MakeError(Code::kBadData, "%u layers are declared, but the file has only %zu tensors",
                   spec.n_layers, found.all().size());
}

// RoPE factors are numbers in config.json and tensors in a GGUF.
Status Checkpoint::Impl::AddMadeTensor(const NeededTensor& needed) {
  const RopeSpec& rope = spec.rope;
  const std::vector<float>& values = needed.name == "rope_freqs.weight" ? rope.frequency_factors
                                     : needed.name == "rope_factors_long.weight"
                                         ? rope.long_factors
                                         : rope.short_factors;
  EW_TRY(Tensor tensor, Tensor::Allocate(DType::kF32, needed.shape));
  std::memcpy(tensor.mutable_data(), values.data(), values.size() * sizeof(float));
  Add(needed.name, DType::kF32, needed.shape, {tensor.view()});
  made.push_back(std::move(tensor));
  return Ok{};
}

// Adds the matrix and its parts to the `known` names, or returns false where it is not quantized.
Result<bool> Checkpoint::Impl::AddQuantized(const TensorIndex& found, const NeededTensor& needed,
                                            std::unordered_set<std::string>* known) {
  if (!quantization) return false;
  EW_TRY(auto matrix, QuantizedMatrix::Find(*quantization, found, needed.hf_name, needed.shape));
  if (!matrix) return false;
  for (const NamedTensor& part : matrix->parts()) known->insert(part.name);
  quantized.push_back(*std::move(matrix));
  Source source{{DType::kF32, needed.shape}, &quantized.back(), needed.permuted_heads, false};
  Add(needed.name, DType::kF32, needed.shape, source);
  return true;
}

// Finds every needed tensor under its Hugging Face name.
Status Checkpoint::Impl::Bind(const TensorIndex& found, bool add_one_to_norms, bool permute) {
  EW_TRY(CheckLayerCount(found));
  std::unordered_set<std::string> known;
  for (NeededTensor& needed : NeededTensors(spec)) {
    if (needed.hf_name.empty()) {
      EW_TRY(AddMadeTensor(needed));
      continue;
    }
    EW_TRY(const bool was_quantized, AddQuantized(found, needed, &known));
    if (was_quantized) continue;
    const TensorView* view = found.Find(needed.hf_name);
    if (!view) return MissingTensor(found, needed.hf_name);
    if (view->shape != needed.shape) return WrongShape(needed.hf_name, needed.shape, view->shape);
    if (IsInteger(view->dtype)) {
      return MakeError(Code::kUnsupported,
                       "tensor %s holds integers, and nothing in the model says what they mean",
                       needed.hf_name.c_str());
    }
    known.insert(needed.hf_name);
    Source source{*view, nullptr, permute ? needed.permuted_heads : 0, false};
    source.add_one = add_one_to_norms && IsNorm(needed);
    Add(needed.name, source.add_one ? DType::kF32 : view->dtype, needed.shape, source);
  }
  for (const NamedTensor& tensor : found.all()) {
    if (known.contains(tensor.name) || IsIgnoredHfTensor(spec, tensor.name)) continue;
    if (quantization && IsZeroBiasOfQuantized(tensor, found)) continue;
    return MakeError(Code::kUnsupported, "tensor %s is no part of a %s that we know",
                     Quote(tensor.name).c_str(), spec.architecture.c_str());
  }
  return Ok{};
}

void Checkpoint::Impl::WriteGeneralKeys(const Architecture& architecture) {
  uint64_t parameters = 0;
  for (const CheckpointTensor& tensor : tensors) parameters += tensor.shape.elements();
  metadata.Set("general.architecture", std::string(architecture.name));
  metadata.Set("general.type", std::string("model"));
  metadata.Set("general.name", spec.name);
  metadata.Set("general.size_label", SizeLabel(parameters));
  architecture.write_keys(spec, &metadata);
}

// Fills in the spec.
Result<const Architecture*> Checkpoint::Impl::ReadConfig(const Json& config) {
  EW_TRY(const Architecture* architecture, ArchitectureOfConfig(config));
  EW_TRY(spec, architecture->from_config(config));
  spec.name = BaseName(path);
  EW_TRY(CheckSpec(spec).In("config.json"));
  if (spec.rope.scaling == RopeScalingKind::kLlama3) {
    spec.rope.frequency_factors = Llama3FrequencyFactors(spec.rope);
  }
  return architecture;
}

Status Checkpoint::Impl::OpenConfig() {
  EW_TRY(const std::string text, ReadFile(path, kMaxConfigBytes));
  EW_TRY(const Json config, ParseJson(text).In(path));
  EW_TRY(const Architecture* architecture, ReadConfig(config).In(path));
  for (const NeededTensor& needed : NeededTensors(spec)) {
    if (needed.hf_name.empty()) {
      EW_TRY(AddMadeTensor(needed));
      continue;
    }
    EW_TRY(TensorBytes(DType::kF32, needed.shape).In(path));
    Add(needed.name, DType::kF32, needed.shape, {{DType::kF32, needed.shape}});
  }
  WriteGeneralKeys(*architecture);
  return Ok{};
}

Status Checkpoint::Impl::OpenFolder() {
  EW_TRY(HfFolder opened, HfFolder::Open(path));
  folder.emplace(std::move(opened));
  EW_TRY(quantization, ReadQuantizationConfig(folder->config()).In(path));
  EW_TRY(const Architecture* architecture, ReadConfig(folder->config()).In(path));
  EW_TRY(Bind(folder->tensors(), architecture->norms_add_one, true).In(path));
  WriteGeneralKeys(*architecture);
  return Ok{};
}

Status Checkpoint::Impl::OpenLlama2c() {
  EW_TRY(Llama2cFile opened, Llama2cFile::Open(path));
  llama2c.emplace(std::move(opened));
  const Llama2cConfig& config = llama2c->config();
  spec.architecture = kLlama.name;
  spec.name = BaseName(path);
  spec.n_layers = config.n_layers;
  spec.dim = config.dim;
  spec.n_heads = config.n_heads;
  spec.n_kv_heads = config.n_kv_heads;
  spec.head_dim = config.n_heads == 0 ? 0 : config.dim / config.n_heads;
  spec.ffn_dim = config.hidden_dim;
  spec.vocab_size = config.vocab_size;
  spec.context_length = config.seq_len;
  spec.rope.rotary_dim = spec.head_dim;
  spec.tied_embeddings = config.shared_classifier;
  EW_TRY(CheckSpec(spec).In(path));
  EW_TRY(Bind(llama2c->tensors(), false, false).In(path));
  WriteGeneralKeys(kLlama);
  return Ok{};
}

Status Checkpoint::Impl::OpenGguf() {
  EW_TRY(GgufFile opened, GgufFile::Open(path));
  gguf.emplace(std::move(opened));
  metadata = gguf->metadata();
  const TensorIndex& found = gguf->tensors();
  if (found.all().empty()) {
    return MakeError(Code::kUnsupported, "%s: no tensors: this GGUF holds a tokenizer only",
                     path.c_str());
  }
  if (!metadata.Find("general.architecture")) {
    return MakeError(Code::kBadData, "%s: the key general.architecture is missing", path.c_str());
  }
  EW_TRY(const std::string name, metadata.GetString("general.architecture").In(path));
  EW_TRY(const Architecture* architecture, FindArchitecture(name).In(path));
  EW_TRY(spec, architecture->from_gguf(metadata, found).In(path));
  EW_TRY(CheckSpec(spec).In(path));
  EW_TRY(CheckLayerCount(found).In(path));
  std::unordered_set<std::string> known;
  for (const NeededTensor& needed : NeededTensors(spec)) {
    const TensorView* view = found.Find(needed.name);
    if (!view) {
      return MakeError(Code::kBadData, "%s: tensor %s is missing", path.c_str(),
                       needed.name.c_str());
    }
    if (view->shape != needed.shape) {
      return WrongShape(needed.name, needed.shape, view->shape).In(path);
    }
    known.insert(needed.name);
  }
  for (const NamedTensor& tensor : found.all()) {
    if (IsIgnoredGgufTensor(tensor.name)) continue;
    if (!known.contains(tensor.name)) {
      return MakeError(Code::kUnsupported, "%s: tensor %s is no part of a %s that we know",
                       path.c_str(), Quote(tensor.name).c_str(), architecture->name);
    }
    Add(tensor.name, tensor.view.dtype, tensor.view.shape, {tensor.view});
  }
  return Ok{};
}

Result<Checkpoint> Checkpoint::Open(const std::string& path) {
  auto impl = std::make_shared<Impl>();
  impl->path = path;
  if (IsDirectory(path)) {
    impl->kind = CheckpointKind::kHfFolder;
    EW_TRY(impl->OpenFolder());
  } else {
    EW_TRY(const bool is_gguf, IsGguf(path));
    EW_TRY(const MappedFile map, MappedFile::Open(path));
    if (is_gguf) {
      impl->kind = CheckpointKind::kGguf;
      EW_TRY(impl->OpenGguf());
    } else if (Llama2cFile::Matches(map.bytes())) {
      impl->kind = CheckpointKind::kLlama2c;
      EW_TRY(impl->OpenLlama2c());
    } else if (path.ends_with(".safetensors")) {
      return MakeError(Code::kUnsupported,
                       "%s: name the folder that holds this file and its config.json",
                       path.c_str());
    } else {
      return MakeError(Code::kBadData,
                       "%s: neither a GGUF file nor a llama2.c checkpoint; a Hugging Face model is "
                       "named by its folder",
                       path.c_str());
    }
  }
  impl->IndexNames();
  return Checkpoint(std::move(impl));
}

Result<Checkpoint> Checkpoint::FromConfig(const std::string& path) {
  auto impl = std::make_shared<Impl>();
  impl->kind = CheckpointKind::kConfig;
  impl->path = path;
  EW_TRY(impl->OpenConfig());
  impl->IndexNames();
  return Checkpoint(std::move(impl));
}

void Checkpoint::Impl::IndexNames() {
  for (size_t i = 0; i < tensors.size(); ++i) by_name.emplace(tensors[i].name, i);
}

struct Checkpoint::CutModel {
  Checkpoint whole;
  ModelSpec spec;
  Metadata metadata;
  std::vector<TensorPart> parts;
  std::vector<CheckpointTensor> tensors;
  std::unordered_map<std::string_view, size_t> by_name;  // keys view tensors[i].name
};

struct Checkpoint::Changes {
  std::vector<CheckpointTensor> tensors;  // as changed
  std::unordered_map<size_t, TensorChange> by_index;
};

Checkpoint::Checkpoint(std::shared_ptr<const Impl> impl) : impl_(std::move(impl)) {}

CheckpointKind Checkpoint::kind() const { return impl_->kind; }
const std::string& Checkpoint::path() const { return impl_->path; }
const ModelSpec& Checkpoint::spec() const { return cut_ ? cut_->spec : impl_->spec; }
const Metadata& Checkpoint::metadata() const { return cut_ ? cut_->metadata : impl_->metadata; }
std::span<const CheckpointTensor> Checkpoint::tensors() const {
  return changes_ ? changes_->tensors : cut_ ? cut_->tensors : impl_->tensors;
}

std::optional<size_t> Checkpoint::Find(std::string_view name) const {
  const auto& by_name = cut_ ? cut_->by_name : impl_->by_name;
  const auto found = by_name.find(name);
  if (found == by_name.end()) return std::nullopt;
  return found->second;
}

TensorChange Then(TensorChange first, TensorChange second) {
  if (!first) return second;
  return [first = std::move(first), second = std::move(second)](std::span<float> values) {
    first(values);
    second(values);
  };
}

Checkpoint Checkpoint::Changed(std::unordered_map<size_t, TensorChange> changes) const {
  Checkpoint changed = *this;
  const std::span<const CheckpointTensor> before = this->tensors();
  Changes all{{before.begin(), before.end()}, {}};
  if (changes_) all.by_index = changes_->by_index;
  for (auto& [index, change] : changes) {
    all.tensors[index] = {before[index].name, DType::kF32, before[index].shape};
    TensorChange& step = all.by_index[index];
    step = Then(std::move(step), std::move(change));
  }
  changed.changes_ = std::make_shared<Changes>(std::move(all));
  return changed;
}

Checkpoint Checkpoint::Cut(const ModelSpec& spec, std::vector<TensorPart> parts) const {
  auto cut =
      std::make_shared<CutModel>(CutModel{*this, spec, metadata(), std::move(parts), {}, {}});
  uint64_t parameters = 0;
  for (const TensorPart& part : cut->parts) {
    const CheckpointTensor& whole = tensors()[part.source];
    cut->tensors.push_back({part.name, whole.dtype, ShapeOf(part, whole.shape), whole.layout});
    parameters += cut->tensors.back().shape.elements();
  }
  for (size_t i = 0; i < cut->tensors.size(); ++i) cut->by_name.emplace(cut->tensors[i].name, i);
  WriteSizeKeys(spec, &cut->metadata);
  WriteHeadDimKeys(spec, &cut->metadata);
  cut->metadata.Set("general.size_label", SizeLabel(parameters));
  Checkpoint smaller(impl_);
  smaller.cut_ = std::move(cut);
  return smaller;
}

Result<Tensor> Checkpoint::Load(size_t index) const {
  if (!changes_) return LoadStored(index);
  const auto change = changes_->by_index.find(index);
  if (change == changes_->by_index.end()) return LoadStored(index);
  EW_TRY(const Tensor stored, LoadStored(index));
  EW_TRY(Tensor changed, Tensor::AllocateUninitialized(DType::kF32, stored.view().shape));
  const std::span values(reinterpret_cast<float*>(changed.mutable_data()),
                         stored.view().shape.elements());
  stored.view().Decode(0, values.size(), values.data());
  change->second(values);
  return changed;
}

Result<Tensor> Checkpoint::LoadStored(size_t index) const {
  if (cut_) {
    const TensorPart& part = cut_->parts[index];
    EW_TRY(Tensor whole, cut_->whole.Load(part.source));
    if (part.rows.empty() && part.columns.empty()) return whole;
    return TakePart(whole.view(), part);
  }
  const Source& source = impl_->sources[index];
  if (source.quantized) {
    EW_TRY(Tensor decoded, DecodeMatrix(*source.quantized, source.view.shape));
    if (source.permuted_heads == 0) return decoded;
    return PermuteRows(decoded.view(), source.permuted_heads);
  }
  if (source.permuted_heads > 0) return PermuteRows(source.view, source.permuted_heads);
  if (source.add_one) return AddOne(source.view);
  if (source.view.data == nullptr) return Tensor::Allocate(source.view.dtype, source.view.shape);
  return Tensor::Borrow(source.view);
}

void Checkpoint::DropPages(size_t index) const {
  if (cut_) return cut_->whole.DropPages(cut_->parts[index].source);
  const auto drop_from = [](const MappedFile* map, std::span<const std::byte> part) {
    if (!map || part.empty()) return;
    const auto all = map->bytes();
    if (part.data() >= all.data() && part.data() + part.size() <= all.data() + all.size()) {
      map->DropPages(part);
    }
  };
  const auto drop = [&](const TensorView& view) {
    if (impl_->gguf) drop_from(impl_->gguf->map(), view.as_bytes());
    if (!impl_->folder) return;
    for (const SafetensorsFile& shard : impl_->folder->shards()) {
      drop_from(shard.map(), view.as_bytes());
    }
  };
  const Source& source = impl_->sources[index];
  if (!source.quantized) return drop(source.view);
  for (const NamedTensor& part : source.quantized->parts()) drop(part.view);
}

}  // namespace edgewise
