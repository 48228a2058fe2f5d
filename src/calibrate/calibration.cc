#include "calibrate/calibration.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <optional>
#include <utility>

#include "base/check.h"
#include "base/strings.h"

namespace edgewise {
namespace {

constexpr char kSquares[] = ".in_sum2", kCounts[] = ".counts", kAbs[] = ".in_sum_abs",
               kMax[] = ".in_max_abs", kHessian[] = ".in_hessian";

constexpr float kMaxTokens = 1e15f;

std::string HessianName(const std::string& weight) { return InputName(weight) + kHessian; }

// The number of columns of a triangle of `elements`.
uint64_t TriangleColumns(uint64_t elements) {
  auto n = static_cast<uint64_t>(std::sqrt(2.0 * static_cast<double>(elements)));
  while (n * (n + 1) / 2 > elements) --n;
  return n;
}

// What one file will hold: the weights in order, each with the number of its columns.
struct WeightInput {
  std::string name;
  uint64_t columns;
};

bool IsFirst(const WeightInput& input, std::span<const WeightInput> all) {
  const std::string name = InputName(input.name);
  if (name == input.name) return true;
  // A fused tensor (ffn_up of gate and up) has no first beside it.
  return std::none_of(all.begin(), all.end(),
                      [&](const WeightInput& other) { return other.name == name; });
}

std::vector<GgufTensorDecl> Declare(std::span<const WeightInput> inputs, bool hessians) {
  std::vector<GgufTensorDecl> tensors;
  for (const WeightInput& input : inputs) {
    const Shape row{1, input.columns};
    tensors.push_back({input.name + kSquares, DType::kF32, row});
    tensors.push_back({input.name + kCounts, DType::kF32, Shape{1, 1}});
    tensors.push_back({input.name + kAbs, DType::kF32, row});
    tensors.push_back({input.name + kMax, DType::kF32, row});
    if (hessians && IsFirst(input, inputs)) {
      const uint64_t n = input.columns;
      tensors.push_back({input.name + kHessian, DType::kF32, Shape{n * (n + 1) / 2}});
    }
  }
  return tensors;
}

Metadata Describe(const CalibrationOrigin& origin) {
  Metadata metadata;
  metadata.Set("general.type", std::string("imatrix"));
  metadata.Set("imatrix.datasets", MetaArray(origin.texts));
  metadata.Set("imatrix.chunk_count", static_cast<uint32_t>(origin.sequences));
  metadata.Set("imatrix.chunk_size", origin.context);
  metadata.Set("edgewise.calibration.model_sha256", origin.model_sha256);
  metadata.Set("edgewise.calibration.tokens", origin.tokens);
  return metadata;
}

Status WriteFloats(std::span<const float> values, GgufWriter* writer) {
  return writer->Write(std::as_bytes(values));
}

std::vector<float> ToFloats(std::span<const double> values) {
  return {values.begin(), values.end()};
}

Status WriteMoments(const ColumnMoments& moments, GgufWriter* writer) {
  const float tokens = static_cast<float>(moments.tokens);
  EW_TRY(WriteFloats(ToFloats(moments.sum_squares), writer));
  EW_TRY(WriteFloats({&tokens, 1}, writer));
  EW_TRY(WriteFloats(ToFloats(moments.sum_abs), writer));
  return WriteFloats(moments.max_abs, writer);
}

// The lower triangle of h (n, n), row by row.
Status WriteTriangle(const float* h, size_t n, GgufWriter* writer) {
  for (size_t i = 0; i < n; ++i) EW_TRY(WriteFloats({h + i * n, i + 1}, writer));
  return Ok{};
}

// The inputs of a layer's weights, summed in one pass.
class LayerSums {
 public:
  static Result<LayerSums> Create(std::span<const LayerMatrix> matrices, bool hessians,
                                  ThreadPool* pool) {
    LayerSums sums;
    for (const LayerMatrix& matrix : matrices) {
      const auto i = static_cast<size_t>(matrix.input);
      if (sums.moments[i].columns() > 0) continue;
      sums.moments[i] = ColumnMoments(matrix.columns);
      if (!hessians) continue;
      EW_TRY(sums.products[i], ProductSum::Create(matrix.columns, pool));
    }
    return sums;
  }
  void Add(LinearInput input, const float* rows, size_t n, size_t stride) {
    const auto i = static_cast<size_t>(input);
    moments[i].Add(rows, n, stride);
    if (products[i]) products[i]->Add(rows, n, stride);
  }
  ColumnMoments moments[kLinearInputs];
  std::optional<ProductSum> products[kLinearInputs];
};

// Writes the sums of one weight's input, with those of `previous` added.
Status WriteInput(const std::string& weight, ColumnMoments moments, ProductSum* products,
                  const CalibrationFile* previous, GgufWriter* writer) {
  for (const double sum : moments.sum_squares) {
    if (std::isfinite(sum)) continue;
    return MakeError(Code::kBadData,
                     "the input of %s is not finite: the weights are damaged; get the model again",
                     weight.c_str());
  }
  if (previous != nullptr) {
    EW_TRY(const ColumnMoments before, previous->Moments(weight));
    moments.Merge(before);
  }
  EW_TRY(WriteMoments(moments, writer));
  if (products == nullptr) return Ok{};
  float* h = products->Finish();
  const size_t n = products->columns();
  if (previous != nullptr) {
    EW_TRY(const std::vector<float> before, previous->Hessian(weight));
    for (size_t i = 0; i < n * n; ++i) h[i] += before[i];
  }
  return WriteTriangle(h, n, writer);
}

// The weights in the order in which a walk meets them, the output matrix last.
std::vector<WeightInput> InputsOf(const Checkpoint& checkpoint) {
  std::vector<WeightInput> inputs;
  const ModelSpec& spec = checkpoint.spec();
  const auto add = [&](const std::string& name) {
    if (const auto index = checkpoint.Find(name)) {
      inputs.push_back({name, checkpoint.tensors()[*index].shape.columns()});
    }
  };
  for (uint32_t layer = 0; layer < spec.n_layers; ++layer) {
    for (const char* stem : kLinearStems) add(Format("blk.%u.%s.weight", layer, stem));
  }
  add(spec.tied_embeddings ? "token_embd.weight" : "output.weight");
  return inputs;
}

Status CheckSameModel(const CalibrationFile& file, const std::string& sha256) {
  const std::string& other = file.origin().model_sha256;
  if (sha256.empty() || other.empty() || sha256 == other) return Ok{};
  return MakeError(Code::kInvalidArgument,
                   "%s: made from another model (SHA-256 %.12s..., not %.12s...)",
                   file.path().c_str(), other.c_str(), sha256.c_str());
}

CalibrationOrigin Join(const CalibrationOrigin& a, const CalibrationOrigin& b) {
  CalibrationOrigin joined = a;
  if (joined.model_sha256.empty()) joined.model_sha256 = b.model_sha256;
  for (const std::string& text : b.texts) {
    if (std::find(a.texts.begin(), a.texts.end(), text) == a.texts.end()) {
      joined.texts.push_back(text);
    }
  }
  joined.tokens += b.tokens;
  joined.sequences += b.sequences;
  joined.context = std::max(a.context, b.context);
  return joined;
}

}  // namespace

std::string InputName(std::string weight) {
  static constexpr std::pair<const char*, const char*> kSharers[] = {
      {".attn_k.", ".attn_q."}, {".attn_v.", ".attn_q."}, {".ffn_up.", ".ffn_gate."}};
  for (const auto& [sharer, first] : kSharers) {
    if (const size_t at = weight.find(sharer); at != std::string::npos) {
      weight.replace(at, std::strlen(sharer), first);
    }
  }
  return weight;
}

void GroupByInput(std::vector<size_t>* indices, FunctionRef<std::string(size_t index)> name) {
  std::unordered_map<std::string, size_t> first;                // place in `indices`, by input
  std::unordered_map<size_t, std::pair<size_t, size_t>> order;  // that place, and its own
  for (size_t i = 0; i < indices->size(); ++i) {
    const size_t index = (*indices)[i];
    order[index] = {first.emplace(InputName(name(index)), i).first->second, i};
  }
  std::sort(indices->begin(), indices->end(),
            [&](size_t a, size_t b) { return order[a] < order[b]; });
}

Result<CalibrationFile> CalibrationFile::Open(const std::string& path) {
  EW_TRY(GgufFile opened, GgufFile::Open(path));
  return Check(std::move(opened), path);
}

Result<CalibrationFile> CalibrationFile::Parse(std::span<const std::byte> bytes) {
  EW_TRY(GgufFile opened, GgufFile::Parse(bytes));
  return Check(std::move(opened), "calibration");
}

Result<CalibrationFile> CalibrationFile::Check(GgufFile opened, const std::string& path) {
  CalibrationFile file(std::move(opened));
  file.path_ = path;
  const Metadata& metadata = file.file_.metadata();
  const auto type = metadata.GetString("general.type");
  if (!type || *type != "imatrix") {
    return MakeError(Code::kBadData,
                     "%s: no calibration (general.type is not \"imatrix\"); `edgewise calibrate` "
                     "and llama-imatrix make one",
                     path.c_str());
  }
  if (const auto* texts = metadata.FindStrings("imatrix.datasets")) file.origin_.texts = *texts;
  EW_TRY(file.origin_.sequences, metadata.GetUint("imatrix.chunk_count", 0).In(path));
  EW_TRY(const uint64_t context, metadata.GetUint("imatrix.chunk_size", 0).In(path));
  file.origin_.context = static_cast<uint32_t>(std::min<uint64_t>(context, UINT32_MAX));
  EW_TRY(file.origin_.model_sha256,
         metadata.GetString("edgewise.calibration.model_sha256", "").In(path));
  EW_TRY(
      file.origin_.tokens,
      metadata.GetUint("edgewise.calibration.tokens", file.origin_.sequences * context).In(path));
  for (const NamedTensor& tensor : file.file_.tensors().all()) {
    if (!tensor.name.ends_with(kSquares)) continue;
    file.weights_.push_back(tensor.name.substr(0, tensor.name.size() - std::strlen(kSquares)));
    EW_TRY(const ColumnMoments checked, file.Moments(file.weights_.back()).In(path));
  }
  if (file.weights_.empty()) {
    return MakeError(Code::kBadData, "%s: a calibration of no weights", path.c_str());
  }
  return file;
}

const TensorView* CalibrationFile::Find(const std::string& weight, const char* suffix) const {
  const TensorView* view = file_.tensors().Find(weight + suffix);
  return view != nullptr && view->dtype == DType::kF32 ? view : nullptr;
}

Result<ColumnMoments> CalibrationFile::Moments(const std::string& weight) const {
  const TensorView* squares = Find(weight, kSquares);
  const TensorView* counts = Find(weight, kCounts);
  if (squares == nullptr || counts == nullptr) {
    return MakeError(Code::kNotFound, "the calibration has no sums for %s", weight.c_str());
  }
  if (counts->shape.elements() != 1) {
    return MakeError(Code::kUnsupported, "%s belongs to a mixture of %llu experts", weight.c_str(),
                     static_cast<unsigned long long>(counts->shape.elements()));
  }
  const size_t n = squares->shape.elements();
  float tokens = 0;
  counts->Decode(0, 1, &tokens);
  ColumnMoments moments(n);
  std::vector<float> values(n);
  squares->Decode(0, n, values.data());
  const auto usable = [](float v) { return std::isfinite(v) && v >= 0; };
  if (!usable(tokens) || tokens > kMaxTokens ||
      !std::all_of(values.begin(), values.end(), usable)) {
    return MakeError(Code::kBadData,
                     "the sums for %s are negative, not finite or of too many tokens",
                     weight.c_str());
  }
  moments.tokens = static_cast<uint64_t>(tokens);
  moments.sum.clear();
  moments.sum_squares.assign(values.begin(), values.end());
  const auto more = [&](const char* suffix, auto* to) -> Status {
    const TensorView* view = Find(weight, suffix);
    if (view == nullptr) return Ok{};
    if (view->shape.elements() != n) {
      return MakeError(Code::kBadData, "%s%s has %llu columns, not %zu", weight.c_str(), suffix,
                       static_cast<unsigned long long>(view->shape.elements()), n);
    }
    view->Decode(0, n, values.data());
    to->assign(values.begin(), values.end());
    return Ok{};
  };
  EW_TRY(more(kAbs, &moments.sum_abs));
  EW_TRY(more(kMax, &moments.max_abs));
  if (const std::vector<float>* by = DivisorsOf(weight)) {
    EW_CHECK(by->size() == n);
    for (size_t c = 0; c < n; ++c) {
      const double divisor = (*by)[c];
      moments.sum_squares[c] /= divisor * divisor;
      moments.sum_abs[c] /= divisor;
      moments.max_abs[c] /= (*by)[c];
    }
  }
  return moments;
}

bool CalibrationFile::HasMagnitudes(const std::string& weight) const {
  return Find(weight, kAbs) != nullptr && Find(weight, kMax) != nullptr;
}

CalibrationFile CalibrationFile::Divided(
    std::unordered_map<std::string, std::vector<float>> divisors) const {
  EW_CHECK(!divisors_);
  CalibrationFile divided = *this;
  divided.divisors_ = std::make_shared<const std::unordered_map<std::string, std::vector<float>>>(
      std::move(divisors));
  return divided;
}

const std::vector<float>* CalibrationFile::DivisorsOf(const std::string& weight) const {
  if (!divisors_) return nullptr;
  const auto found = divisors_->find(weight);
  return found == divisors_->end() ? nullptr : &found->second;
}

bool CalibrationFile::HasHessian(const std::string& weight) const {
  return file_.tensors().Find(HessianName(weight)) != nullptr ||
         file_.tensors().Find(weight + kHessian) != nullptr;
}

Result<std::vector<float>> CalibrationFile::Hessian(const std::string& weight) const {
  const TensorView* view = file_.tensors().Find(HessianName(weight));
  if (view == nullptr) view = file_.tensors().Find(weight + kHessian);
  if (view == nullptr || view->dtype != DType::kF32) {
    return MakeError(Code::kNotFound,
                     "%s: no second moments for %s; calibrate without --no-hessians", path_.c_str(),
                     weight.c_str());
  }
  const uint64_t n = TriangleColumns(view->shape.elements());
  if (n * (n + 1) / 2 != view->shape.elements()) {
    return MakeError(Code::kBadData, "%s: the second moments of %s are no triangle", path_.c_str(),
                     weight.c_str());
  }
  std::vector<float> h(n * n);
  for (uint64_t i = 0; i < n; ++i) {
    view->Decode(i * (i + 1) / 2, i + 1, h.data() + i * n);
    for (uint64_t j = 0; j < i; ++j) h[j * n + i] = h[i * n + j];
  }
  if (file_.map() != nullptr) file_.map()->DropPages(view->as_bytes());
  if (const std::vector<float>* by = DivisorsOf(weight)) {
    EW_CHECK(by->size() == n);
    for (uint64_t i = 0; i < n * n; ++i) h[i] /= (*by)[i / n] * (*by)[i % n];
  }
  return h;
}

Result<ColumnMoments> CalibrationFile::Moments(const std::string& weight, size_t columns) const {
  EW_TRY(ColumnMoments moments, Moments(weight).In(path_));
  if (moments.columns() == columns && moments.tokens > 0) return moments;
  return MakeError(Code::kInvalidArgument,
                   "%s: saw %zu columns in %llu tokens for %s, which has %zu columns: it was made "
                   "from another model",
                   path_.c_str(), moments.columns(),
                   static_cast<unsigned long long>(moments.tokens), weight.c_str(), columns);
}

Result<std::vector<float>> CalibrationFile::Hessian(const std::string& weight,
                                                    size_t columns) const {
  EW_TRY(std::vector<float> h, Hessian(weight));
  if (h.size() == columns * columns) return h;
  return MakeError(Code::kBadData, "%s: the second moments of %s are not of %zu columns",
                   path_.c_str(), weight.c_str(), columns);
}

Status Calibrate(const Checkpoint& checkpoint, TokenSequences sequences, CalibrationOrigin origin,
                 const std::string& out_path, const CalibrateOptions& options, ThreadPool* pool,
                 Progress* progress) {
  origin.tokens = TokenCount(sequences);
  origin.sequences = sequences.size();
  for (const auto& sequence : sequences) {
    origin.context = std::max(origin.context, static_cast<uint32_t>(sequence.size()));
  }
  if (options.previous != nullptr) {
    EW_TRY(CheckSameModel(*options.previous, origin.model_sha256));
    origin = Join(options.previous->origin(), origin);
  }
  const std::vector<WeightInput> inputs = InputsOf(checkpoint);
  EW_TRY(ActivationWalk walk, ActivationWalk::Create(checkpoint, std::move(sequences), pool));
  EW_TRY(GgufWriter writer, GgufWriter::Create(out_path, options.overwrite, Describe(origin),
                                               Declare(inputs, options.hessians)));
  const uint32_t layers = walk.spec().n_layers;
  for (uint32_t layer = 0; layer < layers; ++layer) {
    EW_TRY(walk.Load(layer));
    EW_TRY(LayerSums sums, LayerSums::Create(walk.matrices(), options.hessians, pool));
    EW_TRY(walk.Pass([&](LinearInput input, const float* rows, size_t n, size_t stride) {
      sums.Add(input, rows, n, stride);
      return true;
    }));
    for (const LayerMatrix& matrix : walk.matrices()) {
      auto& products = sums.products[static_cast<size_t>(matrix.input)];
      const bool first = products && IsFirst({matrix.name, matrix.columns}, inputs);
      EW_TRY(WriteInput(matrix.name, sums.moments[static_cast<size_t>(matrix.input)],
                        first ? &*products : nullptr, options.previous, &writer));
    }
    progress->Update("calibrating", layer + 1, layers + 1);
    if (progress->Cancelled()) return MakeError(Code::kCancelled, "stopped; nothing was written");
  }
  ColumnMoments moments(walk.spec().dim);
  std::optional<ProductSum> products;
  if (options.hessians) {
    EW_TRY(products, ProductSum::Create(walk.spec().dim, pool));
  }
  EW_TRY(walk.VisitOutput([&](const float* rows, size_t n, size_t stride) {
    moments.Add(rows, n, stride);
    if (products) products->Add(rows, n, stride);
  }));
  EW_TRY(WriteInput(inputs.back().name, moments, products ? &*products : nullptr, options.previous,
                    &writer));
  return writer.Finish();
}

Status MergeCalibrations(std::span<const CalibrationFile> files, const std::string& out_path,
                         bool overwrite) {
  if (files.empty()) return MakeError(Code::kInvalidArgument, "no calibrations to merge");
  const CalibrationFile& first = files.front();
  CalibrationOrigin origin = first.origin();
  std::vector<WeightInput> inputs;
  bool hessians = true;
  for (const CalibrationFile& file : files) {
    EW_TRY(CheckSameModel(file, first.origin().model_sha256));
    if (!std::equal(file.weights().begin(), file.weights().end(), first.weights().begin(),
                    first.weights().end())) {
      return MakeError(Code::kInvalidArgument, "%s: knows other weights than %s",
                       file.path().c_str(), first.path().c_str());
    }
    if (&file != &first) origin = Join(origin, file.origin());
    for (const std::string& weight : file.weights()) {
      hessians = hessians && file.HasHessian(weight);
    }
  }
  for (const std::string& weight : first.weights()) {
    EW_TRY(const ColumnMoments moments, first.Moments(weight));
    inputs.push_back({weight, moments.columns()});
  }
  EW_TRY(GgufWriter writer,
         GgufWriter::Create(out_path, overwrite, Describe(origin), Declare(inputs, hessians)));
  for (const WeightInput& input : inputs) {
    ColumnMoments moments(input.columns);
    std::vector<float> h;
    for (const CalibrationFile& file : files) {
      EW_TRY(const ColumnMoments more, file.Moments(input.name).In(file.path()));
      if (more.columns() != input.columns) {
        return MakeError(Code::kInvalidArgument, "%s: %s has %zu columns, not %llu",
                         file.path().c_str(), input.name.c_str(), more.columns(),
                         static_cast<unsigned long long>(input.columns));
      }
      moments.Merge(more);
      if (!hessians || !IsFirst(input, inputs)) continue;
      EW_TRY(const std::vector<float> mine, file.Hessian(input.name));
      h.resize(input.columns * input.columns);
      for (size_t i = 0; i < h.size() && i < mine.size(); ++i) h[i] += mine[i];
    }
    EW_TRY(WriteMoments(moments, &writer));
    if (!h.empty()) EW_TRY(WriteTriangle(h.data(), input.columns, &writer));
  }
  return writer.Finish();
}

}  // namespace edgewise
