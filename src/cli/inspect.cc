// edgewise inspect: what is in a model file. Everything but the weights' values is checked before
// anything is printed; values are read as far as it takes to tell a pruned model from a dense one.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <map>
#include <memory>

#include "base/strings.h"
#include "cli/command.h"
#include "cli/output.h"
#include "compress/prune/mask_file.h"
#include "compress/prune/prune.h"
#include "compress/prune/zeros.h"
#include "formats/gguf.h"
#include "model/checkpoint.h"
#include "pipeline/quality_card.h"

namespace edgewise::cli {
namespace {

struct Contents {
  std::string kind;
  std::string architecture;
  const Metadata* metadata = nullptr;
  Json card = {};  // of `edgewise compress`; null: none
  struct Row {
    std::string name;
    std::string format;  // without the layout
    Shape shape;
    TensorLayout layout;
    uint64_t bytes;

    std::string FullFormat() const {
      return format + (layout == TensorLayout::kPacked ? " packed" : "");
    }
  };
  std::vector<Row> tensors;
  uint64_t parameters = 0, bytes = 0;
  double zeros = 0;  // share of the linear layers' weights; 0 for sparse formats and dense models
  std::vector<DType> sparse_formats;  // that would hold them all

  double bits_per_weight() const {
    return parameters == 0 ? 0 : 8.0 * static_cast<double>(bytes) / static_cast<double>(parameters);
  }
};

void AddRow(Contents::Row row, Contents* contents) {
  contents->parameters += row.shape.elements();
  contents->bytes += row.bytes;
  contents->tensors.push_back(std::move(row));
}

Status AddTensor(const std::string& name, DType dtype, const Shape& shape, TensorLayout layout,
                 Contents* contents) {
  EW_TRY(const uint64_t bytes, TensorBytes(dtype, shape, layout).In(name));
  AddRow({name, Info(dtype).name, shape, layout, bytes}, contents);
  return Ok{};
}

// Looks for a pruned model in dense formats; a dense model is known by its first matrix.
void SetZeros(const ZeroScan& scan, Contents* contents) {
  contents->zeros = scan.share();
  contents->sparse_formats = scan.Formats();
}

std::string ZerosText(const Contents& contents) {
  std::string text =
      Format("\nPruned: %.1f %% of the weights of linear layers are 0; ", 100 * contents.zeros);
  std::vector<std::string> names;
  for (const DType type : contents.sparse_formats) names.emplace_back(Info(type).name);
  if (!names.empty()) {
    return text + "`quantize --to` would hold all others in " + Join(names, ", ") + "\n";
  }
  return text + "no sparse format would hold all others (2:4 and 32:64 fit, and sparser)\n";
}

// Format name -> bytes and count, largest first.
std::vector<std::pair<std::string, std::pair<uint64_t, uint64_t>>> ByFormat(
    const Contents& contents) {
  std::map<std::string, std::pair<uint64_t, uint64_t>> sums;
  for (const auto& row : contents.tensors) {
    auto& [bytes, count] = sums[row.FullFormat()];
    bytes += row.bytes;
    ++count;
  }
  std::vector<std::pair<std::string, std::pair<uint64_t, uint64_t>>> sorted(sums.begin(),
                                                                            sums.end());
  std::sort(sorted.begin(), sorted.end(), [](const auto& a, const auto& b) {
    return a.second != b.second ? a.second > b.second : a.first < b.first;
  });
  return sorted;
}

Status PrintHuman(const std::string& path, const Contents& contents, bool all) {
  std::string text = Format("%s: %s", path.c_str(), contents.kind.c_str());
  if (!contents.architecture.empty()) text += ", architecture " + contents.architecture;
  text += Format("\n%zu tensors, %llu parameters, %s, %.3f bits per weight\n",
                 contents.tensors.size(), static_cast<unsigned long long>(contents.parameters),
                 FormatBytes(contents.bytes).c_str(), contents.bits_per_weight());
  for (const auto& [name, sums] : ByFormat(contents)) {
    text += Format("  %-13s %4llu tensors, %s\n", name.c_str(),
                   static_cast<unsigned long long>(sums.second), FormatBytes(sums.first).c_str());
  }
  if (contents.zeros > 0) text += ZerosText(contents);
  if (!contents.card.is_null()) text += "\nQuality card\n" + CardText(contents.card);
  text += "\nMetadata\n";
  for (const auto& [key, value] : contents.metadata->all()) {
    text += Format("  %s (%s) = %s\n", Quote(key, 200).c_str(), MetaTypeName(TypeOf(value)),
                   Describe(value).c_str());
  }
  if (all) {
    std::vector<std::vector<std::string>> rows = {{"tensor", "shape", "format", "bytes"}};
    for (const auto& row : contents.tensors) {
      rows.push_back({Quote(row.name, 200), row.shape.ToString(), row.FullFormat(),
                      std::to_string(row.bytes)});
    }
    text += "\n" + TextTable(rows);
  } else {
    text += "\nAdd --tensors to list the tensors.\n";
  }
  return Print(text);
}

Status PrintMachine(const std::string& path, const Contents& contents) {
  Json metadata{JsonObject()};
  for (const auto& [key, value] : contents.metadata->all()) {
    metadata.Set(key,
                 Json().Set("type", MetaTypeName(TypeOf(value))).Set("value", Describe(value)));
  }
  Json tensors{JsonArray()};
  for (const auto& row : contents.tensors) {
    Json shape{JsonArray()};
    for (int i = 0; i < row.shape.rank(); ++i) shape.Append(row.shape[i]);
    tensors.Append(Json()
                       .Set("name", row.name)
                       .Set("format", row.format)
                       .Set("packed", row.layout == TensorLayout::kPacked)
                       .Set("shape", shape)
                       .Set("bytes", row.bytes));
  }
  Json formats{JsonArray()};
  for (const DType type : contents.sparse_formats) formats.Append(Info(type).name);
  Json object;
  object.Set("path", path).Set("kind", contents.kind).Set("architecture", contents.architecture);
  object.Set("parameters", contents.parameters).Set("tensor_bytes", contents.bytes);
  object.Set("bits_per_weight", contents.bits_per_weight())
      .Set("zeros", contents.zeros)
      .Set("sparse_formats", formats)
      .Set("card", contents.card)
      .Set("metadata", metadata)
      .Set("tensors", tensors);
  return PrintJson("inspect", object);
}

Status Show(const std::string& path, const Contents& contents, bool all, const Common& common) {
  return common.json ? PrintMachine(path, contents) : PrintHuman(path, contents, all);
}

// What a mask file keeps, tensor by tensor.
Status InspectMasks(const std::string& path, GgufFile opened, const Common& common) {
  EW_TRY(const MaskFile file, MaskFile::Create(std::move(opened), path));
  Json tensors{JsonArray()};
  std::vector<std::vector<std::string>> rows = {{"tensor", "weights", "kept", "pattern"}};
  double kept = 0, all = 0;
  for (size_t i = 0; i < file.weights().size(); ++i) {
    const MaskedWeight& weight = file.weights()[i];
    EW_TRY(const Mask mask, file.Load(i));
    const auto found = mask.Pattern();
    const std::string pattern = found ? found->ToString() : "unstructured";
    kept += static_cast<double>(mask.CountKept());
    all += static_cast<double>(weight.rows * weight.columns);
    rows.push_back({Quote(weight.name, 200), Format("%zu x %zu", weight.rows, weight.columns),
                    Format("%.2f %%", 100 * mask.Density()), pattern});
    Json shape{JsonArray()};
    shape.Append(weight.rows);
    shape.Append(weight.columns);
    tensors.Append(Json()
                       .Set("name", weight.name)
                       .Set("shape", shape)
                       .Set("density", mask.Density())
                       .Set("pattern", pattern));
  }
  const double density = all > 0 ? kept / all : 1;
  if (common.json) {
    Json object;
    object.Set("path", path).Set("kind", "mask file").Set("density", density);
    return PrintJson("inspect", object.Set("tensors", tensors));
  }
  return Print(Format("%s: mask file, %zu tensors, %.2f %% of the weights are kept\n", path.c_str(),
                      file.weights().size(), 100 * density) +
               "\n" + TextTable(rows));
}

// A GGUF is shown as it is: it may hold an architecture that we cannot run, or a vocabulary only.
Status InspectGguf(const std::string& path, const GgufFile& file, bool all, const Common& common) {
  Contents contents;
  contents.kind = Format("GGUF version %u", file.version());
  EW_TRY(contents.architecture, file.metadata().GetString("general.architecture", std::string()));
  contents.metadata = &file.metadata();
  EW_TRY(contents.card, FindCard(file.metadata()).In(path));
  ZeroScan scan;
  bool scanning = true;
  for (const NamedTensor& tensor : file.tensors().all()) {
    const TensorView& view = tensor.view;
    EW_TRY(AddTensor(tensor.name, view.dtype, view.shape, view.layout, &contents));
    if (scanning && IsPrunable({tensor.name, view.dtype, view.shape})) {
      scanning = !Info(view.dtype).sparse() && scan.Add(view);
    }
  }
  if (scanning) SetZeros(scan, &contents);
  return Show(path, contents, all, common);
}

bool StartsWithGgufMagic(const std::string& path) {
  const auto file = MappedFile::Open(path);
  if (!file || file->bytes().size() < 4) return false;
  return std::string_view(reinterpret_cast<const char*>(file->bytes().data()), 4) == "GGUF";
}

Status RunInspect(const std::string& path, bool all, const Common& common) {
  if (!IsDirectory(path) && StartsWithGgufMagic(path)) {
    EW_TRY(GgufFile file, GgufFile::Open(path));
    if (MaskFile::Is(file.metadata())) return InspectMasks(path, std::move(file), common);
    return InspectGguf(path, file, all, common);
  }
  EW_TRY(const Checkpoint checkpoint, Checkpoint::Open(path));
  Contents contents;
  contents.kind = checkpoint.kind() == CheckpointKind::kHfFolder ? "Hugging Face folder"
                                                                 : "llama2.c checkpoint";
  contents.architecture = checkpoint.spec().architecture;
  contents.metadata = &checkpoint.metadata();
  ZeroScan scan;
  bool scanning = true;
  for (size_t i = 0; i < checkpoint.tensors().size(); ++i) {
    const CheckpointTensor& tensor = checkpoint.tensors()[i];
    if (scanning && IsPrunable(tensor)) {
      EW_TRY(const Tensor values, checkpoint.Load(i).In(tensor.name));
      scanning = scan.Add(values.view());
      checkpoint.DropPages(i);
    }
    if (tensor.stored_as.empty()) {
      EW_TRY(AddTensor(tensor.name, tensor.dtype, tensor.shape, tensor.layout, &contents));
    } else {
      AddRow({tensor.name, tensor.stored_as, tensor.shape, tensor.layout, tensor.stored_bytes},
             &contents);
    }
  }
  if (scanning) SetZeros(scan, &contents);
  return Show(path, contents, all, common);
}

}  // namespace

Runner AddInspect(CLI::App& app, const Common& common) {
  struct Flags {
    std::string path;
    bool tensors = false;
  };
  auto flags = std::make_shared<Flags>();
  app.add_option("file", flags->path,
                 "GGUF file, Hugging Face folder, llama2.c checkpoint or mask file")
      ->required();
  app.add_flag("--tensors", flags->tensors, "List every tensor (always in --json)");
  return [flags, &common] { return RunInspect(flags->path, flags->tensors, common); };
}

}  // namespace edgewise::cli
