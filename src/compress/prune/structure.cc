#include "compress/prune/structure.h"

#include <algorithm>
#include <bit>
#include <charconv>
#include <cmath>
#include <numeric>
#include <utility>

#include "base/check.h"
#include "base/strings.h"

namespace edgewise {
namespace {

std::vector<uint32_t> FirstOf(uint32_t count) {
  std::vector<uint32_t> indices(count);
  std::iota(indices.begin(), indices.end(), 0u);
  return indices;
}

// One kind of structure, as a request counts it.
struct Dimension {
  const char* flag;
  const char* units;     // for messages
  uint32_t count;        // of units
  uint32_t counted = 1;  // heads of a unit, where the request counts these
  uint64_t columns = 1;  // of a unit, in the matrix that reads them
};

Error TooMuch(const Dimension& of, const Amount& amount, uint64_t left) {
  return MakeError(Code::kInvalidArgument,
                   "--%s %s leaves %llu of %u %s: at least one must go and one stay", of.flag,
                   amount.ToString().c_str(), static_cast<unsigned long long>(left),
                   of.count * of.counted, of.units);
}

// The units that a share leaves: the nearest number that fills a multiple of columns.
Result<uint32_t> KeptByShare(const Dimension& of, const Amount& amount, uint64_t multiple,
                             std::vector<std::string>* notes) {
  const uint64_t total = of.count * of.columns;
  if (multiple == 0) multiple = DefaultMultiple(total);
  if (total % multiple != 0) {
    return MakeError(
        Code::kInvalidArgument, "--multiple %llu does not divide the %llu columns of %s; %llu does",
        static_cast<unsigned long long>(multiple), static_cast<unsigned long long>(total), of.units,
        static_cast<unsigned long long>(DefaultMultiple(total)));
  }
  const uint64_t step = multiple / std::gcd(multiple, of.columns);
  const double wanted = (1 - amount.share) * of.count;
  const auto kept = static_cast<uint64_t>(std::floor(wanted / static_cast<double>(step) + 0.5) *
                                          static_cast<double>(step));
  if (kept == 0 || kept >= of.count) {
    return MakeError(Code::kInvalidArgument,
                     "--%s %s: the nearest multiple of %llu columns leaves %llu of %u %s; ask for "
                     "another share, or give a smaller --multiple",
                     of.flag, amount.ToString().c_str(), static_cast<unsigned long long>(multiple),
                     static_cast<unsigned long long>(kept * of.counted), of.count * of.counted,
                     of.units);
  }
  if (std::fabs(static_cast<double>(kept) - wanted) > 1e-6) {
    notes->push_back(
        Format("--%s %s keeps %llu of %u %s: rounded to a multiple of %llu columns", of.flag,
               amount.ToString().c_str(), static_cast<unsigned long long>(kept * of.counted),
               of.count * of.counted, of.units, static_cast<unsigned long long>(multiple)));
  }
  return static_cast<uint32_t>(kept);
}

Result<uint32_t> KeptOf(const Dimension& of, const Amount& amount, uint64_t multiple,
                        std::vector<std::string>* notes) {
  if (!amount.given()) return of.count;
  if (amount.share > 0) return KeptByShare(of, amount, multiple, notes);
  if (amount.count % of.counted != 0) {
    return MakeError(
        Code::kInvalidArgument,
        "--%s %llu: each key/value head serves %u query heads, which go together; keep "
        "a multiple of %u",
        of.flag, static_cast<unsigned long long>(amount.count), of.counted, of.counted);
  }
  const uint64_t kept = amount.count / of.counted;
  if (kept >= of.count) return TooMuch(of, amount, amount.count);
  return static_cast<uint32_t>(kept);
}

Result<uint32_t> NamedLayers(uint32_t layers, std::span<const uint32_t> named) {
  for (size_t i = 0; i < named.size(); ++i) {
    if (named[i] < layers && (i == 0 || named[i - 1] < named[i])) continue;
    return MakeError(Code::kInvalidArgument,
                     "--keep-layers: name layers of 0 to %u, each once and in order; %u is not",
                     layers - 1, named[i]);
  }
  if (named.size() < layers) return static_cast<uint32_t>(named.size());
  return MakeError(Code::kInvalidArgument, "--keep-layers names all %u layers: nothing would go",
                   layers);
}

Result<uint32_t> KeptLayers(uint32_t layers, const Amount& amount,
                            std::vector<std::string>* notes) {
  if (!amount.given()) return layers;
  const Dimension of{"layers", "layers", layers};
  const double wanted = amount.share * layers;
  const auto gone = amount.share > 0 ? static_cast<uint64_t>(std::lround(wanted)) : amount.count;
  if (gone == 0 || gone >= layers) return TooMuch(of, amount, gone == 0 ? layers : 0);
  if (amount.share > 0 && std::fabs(static_cast<double>(gone) - wanted) > 1e-6) {
    notes->push_back(Format("--layers %s removes %llu of %u layers", amount.ToString().c_str(),
                            static_cast<unsigned long long>(gone), layers));
  }
  return layers - static_cast<uint32_t>(gone);
}

// What llama.cpp or the architecture itself reads from the sizes that would change.
Status CheckArchitecture(const ModelSpec& spec, const StructureRequest& request) {
  const char* name = spec.architecture.c_str();
  if (request.width.given() && spec.post_norms) {
    return MakeError(Code::kUnsupported,
                     "--width: a %s normalizes what its layers add and scales the embedding by its "
                     "length; --ffn is possible",
                     name);
  }
  if (request.LeavesLayersOut() && spec.sliding_window > 0 && spec.sliding_period != 1) {
    return MakeError(Code::kUnsupported,
                     "the layers of this %s attend to a window or to everything by their "
                     "number, so that none can go; --ffn is possible",
                     name);
  }
  const float usual = 1 / std::sqrt(static_cast<float>(spec.head_dim));
  if ((request.heads.given() || request.LeavesLayersOut()) && spec.post_norms &&
      spec.attention_scale != usual) {
    return MakeError(Code::kUnsupported,
                     "--heads and --layers: a %s of this size scales attention by its numbers of "
                     "heads and layers; --ffn is possible",
                     name);
  }
  return Ok{};
}

struct StemAxes {
  std::string_view stem;
  Axis rows, columns;
};
constexpr StemAxes kStems[] = {
    {"token_embd", Axis::kWhole, Axis::kChannels},  {"output", Axis::kWhole, Axis::kChannels},
    {"output_norm", Axis::kChannels, Axis::kWhole}, {"attn_norm", Axis::kChannels, Axis::kWhole},
    {"ffn_norm", Axis::kChannels, Axis::kWhole},    {"attn_q", Axis::kQuery, Axis::kChannels},
    {"attn_k", Axis::kKeyValue, Axis::kChannels},   {"attn_v", Axis::kKeyValue, Axis::kChannels},
    {"attn_qkv", Axis::kQkv, Axis::kChannels},      {"attn_output", Axis::kChannels, Axis::kQuery},
    {"ffn_gate", Axis::kNeurons, Axis::kChannels},  {"ffn_up", Axis::kNeurons, Axis::kChannels},
    {"ffn_down", Axis::kChannels, Axis::kNeurons},
};

uint32_t AxisSize(const ModelSpec& spec, Axis axis) {
  switch (axis) {
    case Axis::kWhole:
      break;
    case Axis::kChannels:
      return spec.dim;
    case Axis::kQuery:
      return spec.q_dim();
    case Axis::kKeyValue:
      return spec.kv_dim();
    case Axis::kQkv:
      return spec.q_dim() + 2 * spec.kv_dim();
    case Axis::kNeurons:
      return spec.ffn_dim;
    case Axis::kGateUp:
      return 2 * spec.ffn_dim;
  }
  return 0;
}

// The indices along an axis of layer `layer` (by its place among those kept) that stay; empty: all.
std::vector<uint32_t> KeptIndices(const ModelSpec& spec, Axis axis, const Structure& kept,
                                  size_t layer) {
  const UnitKind kind = KindOf(axis);
  if (kind == UnitKind::kNone) return {};
  const std::vector<uint32_t>& units = kind == UnitKind::kChannel ? kept.channels
                                       : kind == UnitKind::kGroup ? kept.groups[layer]
                                                                  : kept.neurons[layer];
  if (units.size() == UnitCount(spec, kind)) return {};
  return IndicesOf(spec, axis, units);
}

}  // namespace

Result<Amount> Amount::Parse(std::string_view text) {
  const std::string_view trimmed = Trim(text);
  Amount amount;
  if (trimmed.ends_with('%')) {
    const auto percent = ParseDouble(trimmed.substr(0, trimmed.size() - 1));
    if (percent && *percent > 0 && *percent < 100) amount.share = *percent / 100;
  } else if (const auto count = ParseInt(trimmed); count && *count > 0) {
    amount.count = static_cast<uint64_t>(*count);
  }
  if (amount.given()) return amount;
  return MakeError(Code::kInvalidArgument,
                   "%s is no amount: give the share to remove, above 0 and below 100%% (25%%), or "
                   "a count above 0",
                   Quote(text).c_str());
}

std::string Amount::ToString() const {
  return share > 0 ? Format("%g%%", 100 * share)
                   : Format("%llu", static_cast<unsigned long long>(count));
}

StructureSizes SizesOf(const ModelSpec& spec) {
  return {spec.n_layers, spec.dim, spec.n_kv_heads, spec.ffn_dim};
}

uint64_t DefaultMultiple(uint64_t columns) {
  const uint64_t power = columns & (~columns + 1);
  const uint64_t most = std::clamp<uint64_t>(std::bit_floor(columns / 16), 32, 256);
  return std::min(power, most);
}

Result<StructurePlan> PlanStructure(const ModelSpec& spec, const StructureRequest& request) {
  if (!request.given()) {
    return MakeError(Code::kInvalidArgument,
                     "nothing to remove: give --ffn, --heads, --width, --layers or --keep-layers");
  }
  const bool shares = request.ffn.share > 0 || request.heads.share > 0 || request.width.share > 0;
  if (request.multiple > 0 && !shares) {
    return MakeError(Code::kInvalidArgument,
                     "--multiple rounds what a share of --ffn, --heads or --width keeps, and none "
                     "is given");
  }
  EW_TRY(CheckArchitecture(spec, request));
  const uint32_t sharing = spec.n_heads / spec.n_kv_heads;
  StructurePlan plan;
  if (request.keep_layers.empty()) {
    EW_TRY(plan.kept.layers, KeptLayers(spec.n_layers, request.layers, &plan.notes));
  } else if (request.layers.given()) {
    return MakeError(Code::kInvalidArgument,
                     "--layers chooses layers, and --keep-layers names them: give one");
  } else {
    EW_TRY(plan.kept.layers, NamedLayers(spec.n_layers, request.keep_layers));
  }
  EW_TRY(plan.kept.channels,
         KeptOf({"width", "channels", spec.dim}, request.width, request.multiple, &plan.notes));
  EW_TRY(plan.kept.groups, KeptOf({"heads", "query heads", spec.n_kv_heads, sharing,
                                   uint64_t{sharing} * spec.head_dim},
                                  request.heads, request.multiple, &plan.notes));
  EW_TRY(plan.kept.neurons, KeptOf({"ffn", "feed-forward neurons", spec.ffn_dim}, request.ffn,
                                   request.multiple, &plan.notes));
  const bool square = spec.architecture == "qwen2" || spec.architecture == "phi3";
  if (square && uint64_t{plan.kept.groups} * sharing * spec.head_dim != plan.kept.channels) {
    plan.notes.push_back(
        Format("llama.cpp loads a %s only where all heads together are as wide as "
               "the residual stream, which these are not",
               spec.architecture.c_str()));
  }
  return plan;
}

Structure Structure::First(const StructureSizes& sizes) {
  return {FirstOf(sizes.layers), FirstOf(sizes.channels),
          std::vector(sizes.layers, FirstOf(sizes.groups)),
          std::vector(sizes.layers, FirstOf(sizes.neurons))};
}

uint32_t UnitCount(const ModelSpec& spec, UnitKind kind) {
  return kind == UnitKind::kChannel ? spec.dim
         : kind == UnitKind::kGroup ? spec.n_kv_heads
                                    : spec.ffn_dim;
}

UnitKind KindOf(Axis axis) {
  switch (axis) {
    case Axis::kWhole:
      break;
    case Axis::kChannels:
      return UnitKind::kChannel;
    case Axis::kQuery:
    case Axis::kKeyValue:
    case Axis::kQkv:
      return UnitKind::kGroup;
    case Axis::kNeurons:
    case Axis::kGateUp:
      return UnitKind::kNeuron;
  }
  return UnitKind::kNone;
}

uint32_t UnitOf(const ModelSpec& spec, Axis axis, uint32_t index) {
  if (axis == Axis::kGateUp) return index % spec.ffn_dim;
  if (KindOf(axis) != UnitKind::kGroup) return index;
  const bool query = axis == Axis::kQuery || (axis == Axis::kQkv && index < spec.q_dim());
  if (query) return index / (spec.q_dim() / spec.n_kv_heads);
  if (axis == Axis::kQkv) index = (index - spec.q_dim()) % spec.kv_dim();
  return index / spec.head_dim;
}

std::vector<uint32_t> IndicesOf(const ModelSpec& spec, Axis axis, std::span<const uint32_t> kept) {
  std::vector<bool> stays(UnitCount(spec, KindOf(axis)));
  for (const uint32_t unit : kept) stays[unit] = true;
  std::vector<uint32_t> indices;
  for (uint32_t i = 0; i < AxisSize(spec, axis); ++i) {
    if (stays[UnitOf(spec, axis, i)]) indices.push_back(i);
  }
  return indices;
}

TensorAxes AxesOf(const ModelSpec& spec, std::string_view name) {
  TensorAxes axes;
  axes.rest = name;
  if (name.starts_with("blk.")) {
    const char* end = name.data() + name.size();
    uint32_t layer = 0;
    const auto number = std::from_chars(name.data() + 4, end, layer);
    axes.layer = layer;
    axes.rest = std::string_view(number.ptr + 1, static_cast<size_t>(end - number.ptr) - 1);
  }
  const std::string_view stem = axes.rest.substr(0, axes.rest.find('.'));
  for (const StemAxes& row : kStems) {
    if (row.stem != stem) continue;
    axes.rows = row.rows;
    axes.columns = row.columns;
  }
  if (stem == "ffn_up" && spec.fused_gate_up) axes.rows = Axis::kGateUp;
  return axes;
}

Checkpoint CutModel(const Checkpoint& model, const Structure& kept) {
  ModelSpec spec = model.spec();
  const uint32_t sharing = spec.n_heads / spec.n_kv_heads;
  std::vector<TensorPart> parts;
  for (size_t i = 0; i < model.tensors().size(); ++i) {
    const std::string& name = model.tensors()[i].name;
    const TensorAxes axes = AxesOf(spec, name);
    TensorPart part{i, name, {}, {}};
    size_t layer = 0;
    if (axes.layer) {
      const auto found = std::find(kept.layers.begin(), kept.layers.end(), *axes.layer);
      if (found == kept.layers.end()) continue;
      layer = static_cast<size_t>(found - kept.layers.begin());
      part.name = Format("blk.%zu.", layer) + std::string(axes.rest);
    }
    part.rows = KeptIndices(spec, axes.rows, kept, layer);
    if (model.tensors()[i].shape.rank() == 2) {
      part.columns = KeptIndices(spec, axes.columns, kept, layer);
    }
    parts.push_back(std::move(part));
  }
  spec.n_layers = static_cast<uint32_t>(kept.layers.size());
  spec.dim = static_cast<uint32_t>(kept.channels.size());
  spec.n_kv_heads = static_cast<uint32_t>(kept.groups.front().size());
  spec.n_heads = spec.n_kv_heads * sharing;
  spec.ffn_dim = static_cast<uint32_t>(kept.neurons.front().size());
  return model.Cut(spec, std::move(parts));
}

}  // namespace edgewise
