#include "compress/prune/permute_model.h"

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "base/strings.h"
#include "compress/prune/permute.h"
#include "compress/quantize/tensor_changes.h"

namespace edgewise {
namespace {

// Row r of each run of order.size() rows from `first`, of `count` runs, becomes old row order[r].
void ReorderRows(std::span<float> values, size_t columns, size_t first, size_t count,
                 const std::vector<uint32_t>& order) {
  std::vector<float> old(order.size() * columns);
  for (size_t run = 0; run < count; ++run) {
    float* rows = values.data() + (first + run * order.size()) * columns;
    std::copy_n(rows, old.size(), old.begin());
    for (size_t r = 0; r < order.size(); ++r) {
      std::copy_n(old.begin() + static_cast<std::ptrdiff_t>(order[r] * columns), columns,
                  rows + r * columns);
    }
  }
}

// The same of the runs of columns from `first` of every row.
void ReorderColumns(std::span<float> values, size_t columns, size_t first, size_t count,
                    const std::vector<uint32_t>& order) {
  for (size_t row = 0; row < values.size() / columns; ++row) {
    ReorderRows(values.subspan(row * columns, columns), 1, first, count, order);
  }
}

class ModelPermuter {
 public:
  ModelPermuter(const Checkpoint& model, const PruneOptions& options, ThreadPool* pool)
      : spec_(model.spec()), options_(options), pool_(pool), changes_(model) {}
  // Orders the input of `matrix` of the present layer by these `norms`.
  Status Order(const LayerMatrix& matrix, const std::vector<float>& norms);
  PermutedModel Finish() &&;

 private:
  Result<std::vector<uint32_t>> Search(std::span<const float> scores, size_t columns);
  void Columns(const std::string& name, size_t columns, size_t first, size_t count,
               const std::vector<uint32_t>& order);
  void Rows(const std::string& stem, size_t first, const std::vector<uint32_t>& order);
  void OrderNeurons(const std::string& layer, const std::vector<uint32_t>& order);
  Status OrderValues(const std::string& layer, std::span<const float> scores);
  ScoreMethod method() const {
    return UpdatesWeights(options_.method) ? ScoreMethod::kRia : ScoreOf(options_.method);
  }

  const ModelSpec& spec_;
  const PruneOptions& options_;
  ThreadPool* pool_;
  TensorChanges changes_;
  double before_ = 0, after_ = 0, all_ = 0;  // scores
};

Result<std::vector<uint32_t>> ModelPermuter::Search(std::span<const float> scores, size_t columns) {
  EW_TRY(ChannelOrder order, PermuteChannels(scores, columns, options_.sparsity, pool_));
  before_ += order.kept_score_before;
  after_ += order.kept_score;
  for (const float score : scores) all_ += score;
  return std::move(order.columns);
}

void ModelPermuter::Columns(const std::string& name, size_t columns, size_t first, size_t count,
                            const std::vector<uint32_t>& order) {
  changes_.Add(
      name, [=](std::span<float> values) { ReorderColumns(values, columns, first, count, order); });
}

// The weight's rows and the bias' values.
void ModelPermuter::Rows(const std::string& stem, size_t first,
                         const std::vector<uint32_t>& order) {
  changes_.Add(stem + ".weight", [=, dim = spec_.dim](std::span<float> values) {
    ReorderRows(values, dim, first, 1, order);
  });
  changes_.Add(stem + ".bias",
               [=](std::span<float> values) { ReorderRows(values, 1, first, 1, order); });
}

void ModelPermuter::OrderNeurons(const std::string& layer, const std::vector<uint32_t>& order) {
  Columns(layer + "ffn_down.weight", spec_.ffn_dim, 0, 1, order);
  Rows(layer + "ffn_up", 0, order);
  if (spec_.fused_gate_up) {
    Rows(layer + "ffn_up", spec_.ffn_dim, order);
  } else {
    Rows(layer + "ffn_gate", 0, order);
  }
}

// An order for each value head, by all columns of attn_output that read it.
Status ModelPermuter::OrderValues(const std::string& layer, std::span<const float> scores) {
  const size_t head = spec_.head_dim, columns = spec_.q_dim();
  const size_t sharers = spec_.n_heads / spec_.n_kv_heads, rows = scores.size() / columns;
  if (head % options_.sparsity.group != 0) return Ok{};
  const std::string values = layer + (spec_.fused_qkv ? "attn_qkv" : "attn_v");
  const size_t first = spec_.fused_qkv ? spec_.q_dim() + spec_.kv_dim() : 0;
  for (size_t kv = 0; kv < spec_.n_kv_heads; ++kv) {
    std::vector<float> stacked;  // (rows * sharers, head)
    stacked.reserve(rows * sharers * head);
    for (size_t row = 0; row < rows; ++row) {
      const auto part = scores.subspan(row * columns + kv * sharers * head, sharers * head);
      stacked.insert(stacked.end(), part.begin(), part.end());
    }
    EW_TRY(const std::vector<uint32_t> order, Search(stacked, head));
    Columns(layer + "attn_output.weight", columns, kv * sharers * head, sharers, order);
    Rows(values, first + kv * head, order);
  }
  return Ok{};
}

Status ModelPermuter::Order(const LayerMatrix& matrix, const std::vector<float>& norms) {
  EW_TRY(const std::vector<float> scores,
         Scores(method(), {matrix.values, matrix.rows * matrix.columns}, matrix.columns, norms,
                options_.seed)
             .In(matrix.name));
  const std::string layer = matrix.name.substr(0, matrix.name.find('.', 4) + 1);
  if (matrix.input == LinearInput::kAttnOutput) return OrderValues(layer, scores);
  EW_TRY(const std::vector<uint32_t> order, Search(scores, matrix.columns).In(matrix.name));
  OrderNeurons(layer, order);
  return Ok{};
}

PermutedModel ModelPermuter::Finish() && {
  const double all = all_ > 0 ? all_ : 1;
  return {std::move(changes_).Apply(), before_ / all, after_ / all};
}

bool IsOrdered(const LayerMatrix& matrix) {
  return matrix.input == LinearInput::kAttnOutput || matrix.input == LinearInput::kDown;
}

}  // namespace

Status CheckPermutation(const PruneOptions& options) {
  const bool scored = UpdatesWeights(options.method) || (options.method != PruneMethod::kMask &&
                                                         options.method != PruneMethod::kRandom);
  if (options.sparsity.structured() && scored) return Ok{};
  return MakeError(Code::kInvalidArgument,
                   "an order of channels helps N:M sparsity with methods that weigh weights up, "
                   "not %s with %s",
                   scored ? options.sparsity.ToString().c_str() : "any sparsity",
                   PruneMethodName(options.method));
}

Result<PermutedModel> PermuteModel(const Checkpoint& model, const PruneOptions& options,
                                   const TokenSequences& sequences, ThreadPool* pool) {
  EW_TRY(CheckPermutation(options));
  ModelPermuter permuter(model, options, pool);
  if (!NeedsCalibration(options.method)) {
    EW_TRY(LayerStream stream, LayerStream::Create(model, 1, pool));
    for (uint32_t layer = 0; layer < model.spec().n_layers; ++layer) {
      EW_TRY(stream.Load(layer));
      for (const LayerMatrix& matrix : stream.matrices()) {
        if (IsOrdered(matrix)) EW_TRY(permuter.Order(matrix, {}));
      }
    }
    return std::move(permuter).Finish();
  }
  EW_TRY(ActivationWalk walk, ActivationWalk::Create(model, sequences, pool));
  for (uint32_t layer = 0; layer < model.spec().n_layers; ++layer) {
    EW_TRY(walk.Load(layer));
    EW_TRY(const auto moments, walk.PassWithMoments());
    for (const LayerMatrix& matrix : walk.matrices()) {
      if (!IsOrdered(matrix)) continue;
      EW_TRY(permuter.Order(matrix, ColumnNorms(moments[static_cast<size_t>(matrix.input)])));
    }
  }
  return std::move(permuter).Finish();
}

}  // namespace edgewise
