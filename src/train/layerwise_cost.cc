// What training layer by layer takes.
#include <algorithm>
#include <span>
#include <string>

#include "base/scratch.h"
#include "quant/scale_fields.h"
#include "train/block_scales.h"
#include "train/layerwise.h"
#include "train/moments.h"
#include "train/weights.h"

namespace edgewise::train {
namespace {

constexpr const char* kEmbedding = "token_embd.weight";

uint64_t StoredBytes(const Checkpoint& model, const std::string& name) {
  const auto index = model.Find(name);
  if (!index) return 0;
  const CheckpointTensor& tensor = model.tensors()[*index];
  if (!tensor.stored_as.empty()) return tensor.stored_bytes;
  return TensorBytes(tensor.dtype, tensor.shape, tensor.layout).value_or(0);
}

// What the largest layer of a model takes: its floats, and its bytes as stored.
struct LayerSize {
  uint64_t floats = 0, stored = 0;
};
LayerSize LargestLayer(const Checkpoint& model) {
  const ParameterLayout layout(model.spec());
  LayerSize largest;
  for (uint32_t l = 0; l < model.spec().n_layers; ++l) {
    const LayerLayout layer(layout, l);
    uint64_t stored = 0;
    for (const Parameter& parameter : layer.parameters) {
      stored += StoredBytes(model, parameter.name);
    }
    largest.floats = std::max<uint64_t>(largest.floats, layer.size);
    largest.stored = std::max(largest.stored, stored);
  }
  return largest;
}

// What the blocks and factors of the layer that has most of them take.
uint64_t LargestScales(const Checkpoint& student, const LayerwiseOptions& options) {
  const ParameterLayout layout(student.spec());
  uint64_t largest = 0;
  for (uint32_t l = 0; l < student.spec().n_layers; ++l) {
    const std::vector<Parameter> parameters = LayerLayout(layout, l).parameters;
    const std::vector<DType> formats = FormatsOfLayer(layout, options.written, l);
    uint64_t bytes = 0;
    for (size_t i = 0; i < formats.size(); ++i) {
      const size_t values = parameters[i].shape.elements();
      if (ScaleFieldsOf(formats[i]).empty()) continue;
      bytes += Info(formats[i]).RowBytes(values) +
               BlockScales::FactorsOf(formats[i], values) * 4 * sizeof(float);
    }
    largest = std::max(largest, bytes);
  }
  return largest;
}

}  // namespace

LayerwiseCost CostOfLayerwise(const Checkpoint& teacher, const Checkpoint& student,
                              const LayerwiseOptions& layerwise, uint64_t tokens) {
  constexpr uint64_t kTokenBytes = 8;  // in a batch
  const TrainerOptions& options = layerwise.trainer;
  const ModelSpec &of_teacher = teacher.spec(), &of_student = student.spec();
  const uint64_t rows = std::min<uint64_t>(options.batch.tokens, tokens);
  const uint64_t row_bytes = of_student.dim * sizeof(float);
  const bool on_disk = tokens * row_bytes > ScratchMemory::kInMemory;
  const uint64_t fixed = tokens * kTokenBytes + 2 * (on_disk ? rows : tokens) * row_bytes;
  const LayerSize mine = LargestLayer(student), its = LargestLayer(teacher);
  const bool codes = options.moments == MomentFormat::k8Bit;
  const uint64_t moments = codes ? 2 * (mine.floats + MomentBlocks(mine.floats) * sizeof(float))
                                 : 2 * mine.floats * sizeof(float);
  // Weights as learned and as seen, and gradients; of scales their blocks, and of factors as much
  // as of weights.
  const uint64_t scales = layerwise.learn_scales ? LargestScales(student, layerwise) : 0;
  const uint64_t training = 3 * mine.floats * sizeof(float) + moments + scales +
                            LayerActivationBytes(of_student, rows, true);
  const uint64_t passing = its.floats * sizeof(float) +
                           std::max(its.stored, LayerActivationBytes(of_teacher, rows, false));
  const uint64_t loading = mine.floats * sizeof(float) + mine.stored;
  const auto output = [&](const Checkpoint& model) {
    const ModelSpec& spec = model.spec();
    return ActivationBytes(spec, {}, rows, false) +
           (rows + CheckpointWeights::kOutputRows) * row_bytes + StoredBytes(model, kEmbedding) +
           StoredBytes(model, "output.weight");
  };
  return {fixed + std::max({training, passing, loading, output(teacher), output(student)}),
          on_disk ? 2 * tokens * row_bytes : 0};
}

}  // namespace edgewise::train
