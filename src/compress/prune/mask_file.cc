#include "compress/prune/mask_file.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "base/file.h"
#include "base/strings.h"
#include "compress/quantize/output_error.h"

namespace edgewise {
namespace {

constexpr const char* kTypeKey = "general.type";
constexpr const char* kMaskType = "mask";
constexpr const char* kColumnsKey = "edgewise.mask.columns";

}  // namespace

bool MaskFile::Is(const Metadata& metadata) {
  const auto type = metadata.GetString(kTypeKey);
  return type && *type == kMaskType;
}

Result<MaskFile> MaskFile::Create(GgufFile file, const std::string& path) {
  MaskFile mask(std::move(file), path);
  if (!Is(mask.file_.metadata())) {
    return MakeError(Code::kBadData, "%s: not a mask file: %s is not \"%s\"", path.c_str(),
                     kTypeKey, kMaskType);
  }
  EW_TRY(const std::vector<int64_t> columns, mask.file_.metadata().GetInts(kColumnsKey).In(path));
  const auto tensors = mask.file_.tensors().all();
  if (columns.size() != tensors.size()) {
    return MakeError(Code::kBadData, "%s: %s has %zu entries for %zu tensors", path.c_str(),
                     kColumnsKey, columns.size(), tensors.size());
  }
  for (size_t i = 0; i < tensors.size(); ++i) {
    const TensorView& view = tensors[i].view;
    const uint64_t bytes = view.shape.columns();
    const bool fits = columns[i] > 0 && (static_cast<uint64_t>(columns[i]) + 7) / 8 == bytes;
    if (view.dtype != DType::kI8 || view.shape.rank() != 2 || !fits) {
      return MakeError(Code::kBadData,
                       "%s: tensor %s is no mask of rows of %lld weights: it must be I8, (rows, "
                       "bytes of a row)",
                       path.c_str(), Quote(tensors[i].name).c_str(),
                       static_cast<long long>(columns[i]));
    }
    mask.weights_.push_back({tensors[i].name, view.shape.rows(), static_cast<size_t>(columns[i])});
  }
  return mask;
}

Result<MaskFile> MaskFile::Parse(std::span<const std::byte> bytes) {
  EW_TRY(GgufFile file, GgufFile::Parse(bytes));
  return Create(std::move(file), "mask");
}

Result<Mask> MaskFile::Load(size_t index) const {
  const MaskedWeight& weight = weights_[index];
  const TensorView& view = file_.tensors().all()[index].view;
  return Mask::FromBytes(weight.rows, weight.columns, view.as_bytes())
      .In(path_ + ": " + Quote(weight.name));
}

Result<MaskWriter> MaskWriter::Create(const std::string& path, bool overwrite, Metadata metadata,
                                      std::vector<MaskedWeight> weights) {
  std::vector<uint32_t> columns;
  std::vector<GgufTensorDecl> tensors;
  for (const MaskedWeight& weight : weights) {
    columns.push_back(static_cast<uint32_t>(weight.columns));
    tensors.push_back({weight.name, DType::kI8, Shape{weight.rows, (weight.columns + 7) / 8}});
  }
  metadata.Set(kTypeKey, std::string(kMaskType));
  metadata.Set(kColumnsKey, MetaArray(std::move(columns)));
  EW_TRY(GgufWriter file, GgufWriter::Create(path, overwrite, metadata, std::move(tensors)));
  return MaskWriter(std::move(file), std::move(weights));
}

Status MaskWriter::Write(size_t index, const Mask& mask) {
  EW_TRY(mask.CheckShape(weights_[index].rows, weights_[index].columns).In(weights_[index].name));
  EW_TRY(file_.Begin(index));
  return file_.Write(mask.ToBytes());
}

namespace {

// Zeros are a mask only where rounding made none, and where columns are in the order of the model
// that the mask is for.
Status CheckMaskModel(const Checkpoint& model) {
  for (const CheckpointTensor& tensor : model.tensors()) {
    const DTypeInfo& format = Info(tensor.dtype);
    if (tensor.shape.rank() != 2 || !tensor.name.starts_with("blk.") || !format.quantized() ||
        format.sparse()) {
      continue;
    }
    return MakeError(Code::kInvalidArgument,
                     "tensor %s is in %s, whose rounding makes and moves zeros: no mask; use the "
                     "pruned model in floats or in a sparse format",
                     tensor.name.c_str(), format.name);
  }
  EW_TRY(std::string recipe, model.metadata().GetString("edgewise.recipe", ""));
  if (const auto* history = model.metadata().FindStrings("edgewise.history")) {
    for (const std::string& before : *history) recipe += before;
  }
  for (const char* change : {"\"permute\":true", "\"rotated\""}) {
    if (recipe.find(change) == std::string::npos) continue;
    return MakeError(
        Code::kInvalidArgument,
        "the columns of this model are not those of the model before: it was %s, so "
        "its zeros are no mask for another",
        change[1] == 'p' ? "pruned with its channels in an order of their own" : "rotated");
  }
  return Ok{};
}

}  // namespace

Result<MaskSet> MaskSet::Open(std::span<const std::string> paths) {
  MaskSet set;
  for (const std::string& path : paths) {
    if (!IsDirectory(path)) {
      EW_TRY(const bool gguf, IsGguf(path));
      if (gguf) {
        EW_TRY(GgufFile file, GgufFile::Open(path));
        if (MaskFile::Is(file.metadata())) {
          EW_TRY(MaskFile mask, MaskFile::Create(std::move(file), path));
          set.sources_.push_back({path, std::move(mask)});
          continue;
        }
      }
    }
    EW_TRY(Checkpoint model, Checkpoint::Open(path));
    EW_TRY(CheckMaskModel(model).In(path));
    set.sources_.push_back({path, std::move(model)});
  }
  return set;
}

Result<size_t> MaskSet::Find(const Source& source, const MaskedWeight& weight) {
  size_t rows = 0, columns = 0;
  std::optional<size_t> index;
  if (const auto* file = std::get_if<MaskFile>(&source.file)) {
    const auto all = file->weights();
    const auto found = std::find_if(all.begin(), all.end(),
                                    [&](const auto& known) { return known.name == weight.name; });
    if (found != all.end()) {
      index = static_cast<size_t>(found - all.begin());
      rows = found->rows;
      columns = found->columns;
    }
  } else {
    const Checkpoint& model = std::get<Checkpoint>(source.file);
    index = model.Find(weight.name);
    if (index) {
      rows = model.tensors()[*index].shape.rows();
      columns = model.tensors()[*index].shape.columns();
    }
  }
  if (!index) {
    return MakeError(Code::kInvalidArgument,
                     "%s: has no mask for %s, a weight of this model: use masks of the same model",
                     source.path.c_str(), weight.name.c_str());
  }
  if (rows != weight.rows || columns != weight.columns) {
    return MakeError(Code::kInvalidArgument,
                     "%s: the mask of %s is for %zu x %zu weights and the matrix has %zu x %zu: "
                     "use masks of the same model",
                     source.path.c_str(), weight.name.c_str(), rows, columns, weight.rows,
                     weight.columns);
  }
  return *index;
}

Status MaskSet::Check(const MaskedWeight& weight) const {
  for (const Source& source : sources_) EW_TRY(Find(source, weight));
  return Ok{};
}

Result<Mask> MaskSet::Load(const MaskedWeight& weight) const {
  Mask mask(weight.rows, weight.columns, true);
  for (const Source& source : sources_) {
    EW_TRY(const size_t index, Find(source, weight));
    if (const auto* file = std::get_if<MaskFile>(&source.file)) {
      EW_TRY(const Mask other, file->Load(index));
      mask &= other;
      continue;
    }
    const Checkpoint& model = std::get<Checkpoint>(source.file);
    EW_TRY(const std::vector<float> values, LoadRows(model, index, SIZE_MAX));
    model.DropPages(index);
    mask &= Mask::OfValues(values, weight.columns);
  }
  return mask;
}

}  // namespace edgewise
