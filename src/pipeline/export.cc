#include "pipeline/export.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <span>
#include <string_view>
#include <utility>

#include "base/process.h"
#include "base/strings.h"
#include "base/thread_pool.h"
#include "formats/hf_folder.h"
#include "formats/quantized_linear.h"
#include "formats/safetensors_writer.h"
#include "model/arch/tensors.h"
#include "model/checkpoint.h"
#include "pipeline/export_floats.h"
#include "pipeline/export_layer.h"
#include "pipeline/hf_output.h"

namespace edgewise {
namespace {

// A tensor of the source and what becomes of it.
struct Item {
  NeededTensor needed;
  std::optional<QuantizedMatrix> matrix;  // where the source itself is quantized
  TensorView view;                        // otherwise
  bool encode = false;                    // a linear layer of a block
  size_t first_part = 0;                  // in the declarations
  size_t parts = 1;

  std::string stem() const {
    return needed.hf_name.substr(0, needed.hf_name.size() - std::string_view(".weight").size());
  }
};

struct Plan {
  std::vector<Item> items;
  std::vector<SafetensorsDecl> declarations;
};

Error Invalid(const char* flag, const std::string& value, const char* expected) {
  return MakeError(Code::kInvalidArgument, "%s %s: %s", flag, value.c_str(), expected);
}

Result<LayerFormat> ReadOptions(const ExportOptions& options) {
  LayerFormat format;
  if (options.to == "gptq") {
    format.target = ExportTarget::kGptq;
  } else if (options.to == "awq") {
    format.target = ExportTarget::kAwq;
  } else if (options.to == "bnb-nf4") {
    format.target = ExportTarget::kBnbNf4;
  } else if (options.to == "bnb-int8") {
    format.target = ExportTarget::kBnbInt8;
  } else {
    return Invalid("--to", Quote(options.to),
                   "no such layout; known are gptq, awq, bnb-nf4, bnb-int8, f16, bf16 and f32");
  }
  const bool gptq = format.target == ExportTarget::kGptq;
  const auto bits = {2u, 3u, 4u, 8u};
  if (std::find(bits.begin(), bits.end(), options.bits) == bits.end() ||
      (!gptq && options.bits != 4)) {
    return Invalid("--bits", std::to_string(options.bits),
                   "gptq takes 2, 3, 4 or 8; the others have one size");
  }
  if (options.group_size != -1 && options.group_size < 1) {
    return Invalid("--group-size", std::to_string(options.group_size),
                   "-1 or a number of columns above 0 is expected");
  }
  format.bits = options.bits;
  format.group_size = options.group_size == -1 ? 0 : static_cast<uint64_t>(options.group_size);
  format.symmetric = !options.asymmetric;
  return format;
}

// What transformers reads as "quantization_config".
Json QuantizationConfigJson(const LayerFormat& format) {
  const int64_t group = format.group_size == 0 ? -1 : static_cast<int64_t>(format.group_size);
  Json json;
  switch (format.target) {
    case ExportTarget::kGptq:
      json.Set("quant_method", "gptq").Set("checkpoint_format", "gptq").Set("bits", format.bits);
      json.Set("group_size", group).Set("sym", format.symmetric).Set("desc_act", false);
      json.Set("static_groups", false).Set("true_sequential", true).Set("lm_head", false);
      break;
    case ExportTarget::kAwq:
      json.Set("quant_method", "awq").Set("version", "gemm").Set("bits", format.bits);
      json.Set("group_size", group).Set("zero_point", true);
      json.Set("modules_to_not_convert", nullptr);
      break;
    case ExportTarget::kBnbNf4:
      json.Set("quant_method", "bitsandbytes").Set("load_in_4bit", true).Set("load_in_8bit", false);
      json.Set("bnb_4bit_quant_type", "nf4").Set("bnb_4bit_use_double_quant", true);
      json.Set("bnb_4bit_compute_dtype", "float16").Set("bnb_4bit_quant_storage", "uint8");
      break;
    case ExportTarget::kBnbInt8:
      json.Set("quant_method", "bitsandbytes").Set("load_in_4bit", false).Set("load_in_8bit", true);
      json.Set("llm_int8_threshold", 6.0).Set("llm_int8_skip_modules", nullptr);
      break;
  }
  return json;
}

// Decides which tensors are written, and as what. Biases and norms stay bit for bit.
Result<Plan> MakePlan(const HfFolder& folder, const ModelSpec& spec, const LayerFormat& format) {
  EW_TRY(const auto quantization, ReadQuantizationConfig(folder.config()));
  Plan plan;
  for (NeededTensor& needed : NeededTensors(spec)) {
    if (needed.hf_name.empty()) continue;  // made from config.json
    Item item;
    item.encode = needed.linear && needed.name.starts_with("blk.");
    if (quantization) {
      EW_TRY(item.matrix,
             QuantizedMatrix::Find(*quantization, folder.tensors(), needed.hf_name, needed.shape));
    }
    if (!item.matrix) item.view = *folder.tensors().Find(needed.hf_name);
    item.needed = std::move(needed);
    item.first_part = plan.declarations.size();
    const Shape& shape = item.needed.shape;
    if (item.encode) {
      EW_TRY(CheckLayer(format, shape).In(item.needed.hf_name));
      auto parts = LayerParts(format, item.stem(), shape);
      item.parts = parts.size();
      std::move(parts.begin(), parts.end(), std::back_inserter(plan.declarations));
    } else {
      plan.declarations.push_back(DeclareTensor(item.needed, item.view.dtype));
    }
    plan.items.push_back(std::move(item));
  }
  return plan;
}

Result<std::vector<float>> DecodeItem(const Item& item) {
  std::vector<float> values(item.needed.shape.elements());
  if (item.matrix) {
    item.matrix->Decode(values.data());
  } else {
    item.view.Decode(0, values.size(), values.data());
  }
  const auto bad =
      std::find_if(values.begin(), values.end(), [](float v) { return !std::isfinite(v); });
  if (bad == values.end()) return values;
  const auto at = static_cast<uint64_t>(bad - values.begin());
  return MakeError(Code::kBadData,
                   "tensor %s holds NaN or infinity at row %llu, column %llu: the weights are "
                   "broken",
                   item.needed.hf_name.c_str(),
                   static_cast<unsigned long long>(at / item.needed.shape.columns()),
                   static_cast<unsigned long long>(at % item.needed.shape.columns()));
}

Result<const float*> WeightsOf(const Item& item, const ExportOptions& options) {
  const auto found = options.importance.find(item.needed.name);
  if (found == options.importance.end()) return nullptr;
  if (found->second.size() == item.needed.shape.columns()) return found->second.data();
  return MakeError(Code::kInvalidArgument, "importance of %s has %zu values; %llu are expected",
                   item.needed.name.c_str(), found->second.size(),
                   static_cast<unsigned long long>(item.needed.shape.columns()));
}

Status WriteLayer(const Item& item, const LayerFormat& format, const ExportOptions& options,
                  ThreadPool* pool, SafetensorsWriter* writer, ExportSummary* summary) {
  EW_TRY(const std::vector<float> values, DecodeItem(item));
  EW_TRY(const float* weights, WeightsOf(item, options));
  const EncodedLayer layer = EncodeLayer(format, item.needed.shape, values, weights, pool);
  ExportedLayer row{item.stem(), item.needed.shape, 0, 0};
  for (size_t i = 0; i < layer.parts.size(); ++i) {
    row.bytes += layer.parts[i].size();
    EW_TRY(writer->Write(item.first_part + i, layer.parts[i]));
  }
  double square = 0;
  for (const float value : values) {
    square += static_cast<double>(value) * static_cast<double>(value);
  }
  row.relative_rmse = square > 0 ? std::sqrt(layer.squared_error / square) : 0;
  summary->layers.push_back(std::move(row));
  return Ok{};
}

Status WritePlain(const Item& item, SafetensorsWriter* writer) {
  if (!item.matrix) return writer->Write(item.first_part, item.view.as_bytes());
  EW_TRY(const std::vector<float> values, DecodeItem(item));
  return writer->Write(item.first_part, std::as_bytes(std::span(values)));
}

// So that the pages of a large source do not pile up in memory.
void DropPages(const HfFolder& folder, const Item& item) {
  const auto drop = [&](std::span<const std::byte> part) {
    for (const SafetensorsFile& shard : folder.shards()) {
      const auto all = shard.map()->bytes();
      if (part.data() >= all.data() && part.data() + part.size() <= all.data() + all.size()) {
        shard.map()->DropPages(part);
      }
    }
  };
  if (!item.matrix) return drop(item.view.as_bytes());
  for (const NamedTensor& part : item.matrix->parts()) drop(part.view.as_bytes());
}

Status WriteTensors(const HfFolder& folder, const Plan& plan, const LayerFormat& format,
                    const ExportOptions& options, const std::string& path, Progress* progress,
                    ExportSummary* summary) {
  EW_TRY(auto writer,
         SafetensorsWriter::Create(path, options.overwrite, plan.declarations, {{"format", "pt"}}));
  ThreadPool pool(options.threads > 0 ? options.threads : ThreadPool::AvailableCpus());
  uint64_t total = 0, done = 0;
  for (const Item& item : plan.items) total += item.needed.shape.elements();
  for (const Item& item : plan.items) {
    if (progress->Cancelled()) return MakeError(Code::kCancelled, "stopped; no model was written");
    if (item.encode) {
      EW_TRY(WriteLayer(item, format, options, &pool, &writer, summary));
    } else {
      EW_TRY(WritePlain(item, &writer));
    }
    DropPages(folder, item);
    done += item.needed.shape.elements();
    progress->Update("writing", done, total);
  }
  summary->bytes = writer.total_bytes();
  summary->parameters = total;
  return writer.Finish();
}

// The largest file comes first, so that what fails or is stopped leaves no file behind, and
// config.json last.
Status WriteFolder(const HfFolder& folder, const Plan& plan, const LayerFormat& format,
                   const ExportOptions& options, Progress* progress, ExportSummary* summary) {
  const std::string& path = summary->output;
  EW_TRY(WriteTensors(folder, plan, format, options, path + "/model.safetensors", progress, summary)
             .In(folder.path()));
  EW_TRY(CopyTokenizerFiles(folder.path(), path, options.overwrite));
  Json config = folder.config();
  config.Set("quantization_config", QuantizationConfigJson(format));
  return FinishFolder(path, config, options.overwrite);
}

double BitsPerWeight(const std::vector<ExportedLayer>& layers) {
  double bytes = 0, values = 0;
  for (const ExportedLayer& layer : layers) {
    bytes += static_cast<double>(layer.bytes);
    values += static_cast<double>(layer.shape.elements());
  }
  return values > 0 ? 8 * bytes / values : 0;
}

Status ExportQuantized(const std::string& in_path, const ExportOptions& options, Progress* progress,
                       ExportSummary* summary) {
  EW_TRY(const LayerFormat format, ReadOptions(options));
  if (!options.config.empty() || !options.tokenizer.empty()) {
    return MakeError(Code::kInvalidArgument,
                     "a config.json and a tokenizer are named for floats alone; quantized layers "
                     "take those of their source");
  }
  EW_TRY(const Checkpoint checkpoint, Checkpoint::Open(in_path));
  if (checkpoint.kind() != CheckpointKind::kHfFolder) {
    return MakeError(Code::kUnsupported,
                     "%s: not a Hugging Face folder, whose config.json and tokenizer an export "
                     "needs; name the folder that the model came from, or make one with --to f16",
                     in_path.c_str());
  }
  const std::string& out_path = summary->output;
  EW_TRY(CheckFolderOutput(in_path, out_path, options.overwrite));
  EW_TRY(const HfFolder folder, HfFolder::Open(in_path));
  EW_TRY(const Plan plan, MakePlan(folder, checkpoint.spec(), format).In(in_path));
  return WriteInFolder(
      out_path, [&] { return WriteFolder(folder, plan, format, options, progress, summary); });
}

}  // namespace

Result<ExportSummary> Export(const std::string& in_path, const std::string& out_path,
                             const ExportOptions& options, Progress* progress) {
  const double start = NowSeconds();
  NoProgress silent;
  if (progress == nullptr) progress = &silent;
  ExportSummary summary;
  summary.output = out_path;
  if (IsFloatExport(options.to)) {
    EW_TRY(ExportFloats(in_path, options, progress, &summary));
  } else {
    EW_TRY(ExportQuantized(in_path, options, progress, &summary));
    summary.bits_per_weight = BitsPerWeight(summary.layers);
  }
  summary.seconds = NowSeconds() - start;
  summary.peak_rss_bytes = ReadMemoryUse().peak_rss_bytes;
  return summary;
}

Json SummaryToJson(const ExportSummary& summary) {
  Json layers{JsonArray{}};
  for (const ExportedLayer& layer : summary.layers) {
    Json item;
    item.Set("name", layer.name).Set("shape", JsonArray{layer.shape[0], layer.shape[1]});
    item.Set("bytes", layer.bytes).Set("relative_rmse", layer.relative_rmse);
    layers.Append(std::move(item));
  }
  Json json;
  json.Set("output", summary.output).Set("bytes", summary.bytes);
  json.Set("parameters", summary.parameters).Set("bits_per_weight", summary.bits_per_weight);
  json.Set("seconds", summary.seconds).Set("peak_rss_bytes", summary.peak_rss_bytes);
  json.Set("layers", std::move(layers));
  return json;
}

}  // namespace edgewise
