// Structure: the layers, residual channels, attention groups and feed-forward neurons of a model,
// of which pruning keeps some. What is left is a smaller model of the same architecture.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "model/checkpoint.h"
#include "model/spec.h"

namespace edgewise {

// How much of one kind of structure goes.
struct Amount {
  double share = 0;    // that is removed, in (0, 1); 0: none is given
  uint64_t count = 0;  // 0: none is given

  bool given() const { return share > 0 || count > 0; }
  // Reads "25%" or "512". Errors: kInvalidArgument.
  static Result<Amount> Parse(std::string_view text);
  std::string ToString() const;
};

// What is to be removed of a model; the counts are of what is kept, but of layers of what goes.
struct StructureRequest {
  Amount ffn = {};     // neurons: rows of gate and up, columns of down
  Amount heads = {};   // query heads, in whole groups that share a key/value head
  Amount width = {};   // channels of the residual stream: the embedding length
  Amount layers = {};  // whole layers
  // In place of `layers`: those that stay, from 0, rising (DistilBERT, Sanh et al. 2019).
  std::vector<uint32_t> keep_layers = {};
  uint64_t multiple = 0;  // that a share is rounded to, in columns; 0: DefaultMultiple

  bool given() const { return LeavesInputsToFit() || LeavesLayersOut(); }
  bool LeavesLayersOut() const { return layers.given() || !keep_layers.empty(); }
  // True when matrices lose inputs, and can be fitted to make up for them.
  bool LeavesInputsToFit() const { return ffn.given() || heads.given() || width.given(); }
};

// The sizes of a model in units that are kept or go whole.
struct StructureSizes {
  uint32_t layers = 0;
  uint32_t channels = 0;
  uint32_t groups = 0;   // key/value heads, each with its query heads
  uint32_t neurons = 0;  // of the feed-forward
};
StructureSizes SizesOf(const ModelSpec& spec);

// What a request comes to.
struct StructurePlan {
  StructureSizes kept;
  std::vector<std::string> notes;  // of shares that were rounded
};

// The largest power of two that divides rows of `columns`, at most 256 and a sixteenth of them, but
// 32 always: blocks of formats go on to fit.
uint64_t DefaultMultiple(uint64_t columns);

// Errors: kInvalidArgument (nothing asked, nothing left or nothing removed, heads that do not fill
// groups, layers to keep that are not there or not in order); kUnsupported (the architecture cannot
// lose this).
Result<StructurePlan> PlanStructure(const ModelSpec& spec, const StructureRequest& request);

// What stays; all indices rise.
struct Structure {
  std::vector<uint32_t> layers;
  std::vector<uint32_t> channels;
  std::vector<std::vector<uint32_t>> groups, neurons;  // of each of `layers`

  // The first of everything: a stand-in with the right sizes.
  static Structure First(const StructureSizes& sizes);
};

// The kinds of units besides layers.
enum class UnitKind : uint8_t { kNone, kChannel, kGroup, kNeuron };
uint32_t UnitCount(const ModelSpec& spec, UnitKind kind);

// What an index along a dimension of a tensor belongs to.
enum class Axis : uint8_t { kWhole, kChannels, kQuery, kKeyValue, kQkv, kNeurons, kGateUp };
UnitKind KindOf(Axis axis);
uint32_t UnitOf(const ModelSpec& spec, Axis axis, uint32_t index);
// The indices that belong to the `kept` units.
std::vector<uint32_t> IndicesOf(const ModelSpec& spec, Axis axis, std::span<const uint32_t> kept);

// A tensor's name taken apart, and its axes: of a vector only `rows`.
struct TensorAxes {
  std::optional<uint32_t> layer;
  std::string_view rest;  // of "blk.2.attn_q.weight": "attn_q.weight"
  Axis rows = Axis::kWhole, columns = Axis::kWhole;
};
TensorAxes AxesOf(const ModelSpec& spec, std::string_view name);

// Returns the model of what is `kept`, whose tensors are cut as they are loaded.
Checkpoint CutModel(const Checkpoint& model, const Structure& kept);

}  // namespace edgewise
