#include "formats/quantized_linear.h"

#include <algorithm>
#include <cctype>
#include <string_view>

#include "base/strings.h"

namespace edgewise {
namespace {

constexpr const char* kKey = "quantization_config";

// Members of a quantization_config; null counts as absent. Messages name the key.
class Fields {
 public:
  explicit Fields(const Json& json) : json_(json) {}

  const Json* Find(const char* key) const {
    const Json* value = json_.Find(key);
    return value && value->is_null() ? nullptr : value;
  }
  Result<int64_t> Int(const char* key, const char* other_key) const {
    const Json* value = Find(key);
    if (!value) value = Find(other_key);
    if (!value) return MakeError(Code::kBadData, "\"%s\" is missing", key);
    if (const auto number = value->AsInt()) return *number;
    return Mistyped(key, "an integer", *value);
  }
  Result<bool> Bool(const char* key, bool fallback) const {
    const Json* value = Find(key);
    if (!value) return fallback;
    if (const auto flag = value->AsBool()) return *flag;
    return Mistyped(key, "true or false", *value);
  }
  // In lower case, as tools write either.
  Result<std::string> Name(const char* key, std::string fallback) const {
    const Json* value = Find(key);
    if (!value) return fallback;
    if (!value->AsString()) return Mistyped(key, "a string", *value);
    std::string name = *value->AsString();
    for (char& c : name) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
    return name;
  }

 private:
  static Error Mistyped(const char* key, const char* expected, const Json& found) {
    return MakeError(Code::kBadData, "\"%s\" is %s; %s is expected", key,
                     Quote(found.Dump()).c_str(), expected);
  }
  const Json& json_;
};

Result<uint64_t> ReadGroupSize(const Fields& fields) {
  EW_TRY(const int64_t size, fields.Int("group_size", "q_group_size"));
  if (size == -1) return 0;
  if (size > 0) return static_cast<uint64_t>(size);
  return MakeError(Code::kBadData, "\"group_size\" is %lld; -1 or a size above 0 is expected",
                   static_cast<long long>(size));
}

Result<GptqOptions> ReadGptq(const Fields& fields) {
  EW_TRY(const int64_t bits, fields.Int("bits", "bits"));
  if (bits != 2 && bits != 3 && bits != 4 && bits != 8) {
    return MakeError(Code::kUnsupported, "GPTQ with %lld bits; 2, 3, 4 and 8 are supported",
                     static_cast<long long>(bits));
  }
  EW_TRY(const std::string fallback, fields.Name("format", "gptq"));
  EW_TRY(std::string format, fields.Name("checkpoint_format", fallback));
  EW_TRY(const bool marlin, fields.Bool("is_marlin_format", false));
  if (marlin) format = "marlin";
  if (format != "gptq" && format != "gptq_v2") {
    return MakeError(Code::kUnsupported,
                     "GPTQ in the format %s; \"gptq\" and \"gptq_v2\" are supported",
                     Quote(format).c_str());
  }
  const Json* dynamic = fields.Find("dynamic");
  if (dynamic && !(dynamic->AsObject() && dynamic->AsObject()->empty())) {
    return MakeError(Code::kUnsupported,
                     "\"dynamic\" gives some layers other settings; only one setting for all is "
                     "supported");
  }
  EW_TRY(const uint64_t group_size, ReadGroupSize(fields));
  EW_TRY(const bool desc_act, fields.Bool("desc_act", false));
  return GptqOptions{static_cast<uint32_t>(bits), group_size, format == "gptq", desc_act};
}

Result<AwqOptions> ReadAwq(const Fields& fields) {
  EW_TRY(const int64_t bits, fields.Int("bits", "w_bit"));
  if (bits != 4) {
    return MakeError(Code::kUnsupported, "AWQ with %lld bits; 4 are supported",
                     static_cast<long long>(bits));
  }
  EW_TRY(const std::string version, fields.Name("version", "gemm"));
  if (version != "gemm") {
    return MakeError(Code::kUnsupported, "AWQ in the version %s; \"gemm\" is supported",
                     Quote(version).c_str());
  }
  EW_TRY(const bool zero_point, fields.Bool("zero_point", true));
  if (!zero_point) {
    return MakeError(Code::kUnsupported, "AWQ with \"zero_point\" false; only true is supported");
  }
  EW_TRY(const uint64_t group_size, ReadGroupSize(fields));
  return AwqOptions{group_size};
}

Result<QuantizationConfig> ReadMethod(const Json& json) {
  if (!json.is_object()) {
    return MakeError(Code::kBadData, "a JSON %s; an object is expected", json.TypeName());
  }
  const Fields fields(json);
  EW_TRY(const bool in_4_bits, fields.Bool("load_in_4bit", false));
  EW_TRY(const bool in_8_bits, fields.Bool("load_in_8bit", false));
  EW_TRY(const std::string method,
         fields.Name("quant_method", in_4_bits || in_8_bits ? "bitsandbytes" : ""));
  if (method == "gptq") {
    EW_TRY(const GptqOptions options, ReadGptq(fields));
    return QuantizationConfig(options);
  }
  if (method == "awq") {
    EW_TRY(const AwqOptions options, ReadAwq(fields));
    return QuantizationConfig(options);
  }
  if (method == "bitsandbytes") return QuantizationConfig(BnbOptions{});
  return MakeError(Code::kUnsupported,
                   "weights quantized by %s; gptq, awq and bitsandbytes are supported, or take the "
                   "original F16, BF16 or F32 model",
                   method.empty() ? "an unnamed method" : Quote(method).c_str());
}

// Collects the parts of one layer by name.
class PartFinder {
 public:
  PartFinder(const TensorIndex& tensors, std::string stem)
      : tensors_(tensors), stem_(std::move(stem)) {}

  std::optional<TensorView> Optional(const char* suffix) {
    const TensorView* view = tensors_.Find(stem_ + suffix);
    if (!view) return std::nullopt;
    found_.push_back({stem_ + suffix, *view});
    return *view;
  }
  Result<TensorView> Required(const char* suffix) {
    if (const auto view = Optional(suffix)) return *view;
    return MakeError(Code::kBadData, "%s is missing", suffix + 1);  // behind the dot
  }
  const std::string& stem() const { return stem_; }
  std::vector<NamedTensor> Take() { return std::move(found_); }

 private:
  const TensorIndex& tensors_;
  std::string stem_;
  std::vector<NamedTensor> found_;
};

Result<GptqMatrix> MakeGptq(const GptqOptions& options, const Shape& shape, PartFinder* finder) {
  GptqParts parts;
  EW_TRY(parts.qweight, finder->Required(".qweight"));
  EW_TRY(parts.qzeros, finder->Required(".qzeros"));
  EW_TRY(parts.scales, finder->Required(".scales"));
  parts.g_idx = finder->Optional(".g_idx");
  return GptqMatrix::Make(options, parts, shape);
}

Result<AwqMatrix> MakeAwq(const AwqOptions& options, const Shape& shape, PartFinder* finder) {
  AwqParts parts;
  EW_TRY(parts.qweight, finder->Required(".qweight"));
  EW_TRY(parts.qzeros, finder->Required(".qzeros"));
  EW_TRY(parts.scales, finder->Required(".scales"));
  return AwqMatrix::Make(options, parts, shape);
}

Result<Bnb4Matrix> MakeBnb4(const TensorView& state, const Shape& shape, PartFinder* finder) {
  Bnb4Parts parts;
  parts.quant_state = state;
  EW_TRY(parts.weight, finder->Required(".weight"));
  EW_TRY(parts.absmax, finder->Required(".weight.absmax"));
  EW_TRY(parts.quant_map, finder->Required(".weight.quant_map"));
  parts.nested_absmax = finder->Optional(".weight.nested_absmax");
  parts.nested_quant_map = finder->Optional(".weight.nested_quant_map");
  return Bnb4Matrix::Make(parts, shape);
}

Result<Bnb8Matrix> MakeBnb8(const TensorView& scb, const Shape& shape, PartFinder* finder) {
  Bnb8Parts parts;
  parts.scb = scb;
  EW_TRY(parts.weight, finder->Required(".weight"));
  parts.weight_format = finder->Optional(".weight_format");
  return Bnb8Matrix::Make(parts, shape);
}

}  // namespace

Result<std::optional<QuantizationConfig>> ReadQuantizationConfig(const Json& config) {
  const Json* json = config.Find(kKey);
  if (!json || json->is_null()) return std::optional<QuantizationConfig>();
  EW_TRY(const QuantizationConfig read, ReadMethod(*json).In(Format("config.json: %s", kKey)));
  return std::optional<QuantizationConfig>(read);
}

Result<std::optional<QuantizedMatrix>> QuantizedMatrix::Find(const QuantizationConfig& config,
                                                             const TensorIndex& tensors,
                                                             const std::string& weight_name,
                                                             const Shape& shape) {
  constexpr std::string_view kWeight = ".weight";
  if (!weight_name.ends_with(kWeight) || shape.rank() != 2) return std::optional<QuantizedMatrix>();
  const std::string stem = weight_name.substr(0, weight_name.size() - kWeight.size());
  PartFinder finder(tensors, stem);
  const auto finish = [&](Layout layout) {
    return std::optional<QuantizedMatrix>(QuantizedMatrix(std::move(layout), finder.Take()));
  };
  const auto* gptq = std::get_if<GptqOptions>(&config);
  const auto* awq = std::get_if<AwqOptions>(&config);
  if (gptq || awq) {
    if (!tensors.Find(stem + ".qweight")) return std::optional<QuantizedMatrix>();
    if (gptq) {
      EW_TRY(GptqMatrix matrix, MakeGptq(*gptq, shape, &finder).In(stem));
      return finish(std::move(matrix));
    }
    EW_TRY(AwqMatrix matrix, MakeAwq(*awq, shape, &finder).In(stem));
    return finish(std::move(matrix));
  }
  auto state = finder.Optional(".weight.quant_state.bitsandbytes__nf4");
  if (!state) state = finder.Optional(".weight.quant_state.bitsandbytes__fp4");
  if (state) {
    EW_TRY(Bnb4Matrix matrix, MakeBnb4(*state, shape, &finder).In(stem));
    return finish(std::move(matrix));
  }
  if (const auto scb = finder.Optional(".SCB")) {
    EW_TRY(Bnb8Matrix matrix, MakeBnb8(*scb, shape, &finder).In(stem));
    return finish(std::move(matrix));
  }
  return std::optional<QuantizedMatrix>();
}

std::string QuantizedMatrix::name() const {
  if (const auto* gptq = std::get_if<GptqMatrix>(&layout_))
    return Format("gptq-%ubit", gptq->bits());
  if (std::holds_alternative<AwqMatrix>(layout_)) return "awq-4bit";
  return std::holds_alternative<Bnb4Matrix>(layout_) ? "bnb-4bit" : "bnb-8bit";
}

void QuantizedMatrix::Decode(float* values) const {
  std::visit([values](const auto& matrix) { matrix.Decode(values); }, layout_);
}

}  // namespace edgewise
