// Sequences that grow by a token at a time.
#include <algorithm>
#include <utility>

#include "base/check.h"
#include "train/network_impl.h"

namespace edgewise::train {
namespace {

// Keeps the rows of each layer where its sequences will grow.
class Keeper final : public LayerVisitor {
 public:
  explicit Keeper(Growing* growing) : growing_(*growing) {}
  void Visit(const LayerView& view) override {
    if (view.depth == 0) return;
    std::vector<float>& kept = growing_.qkv[view.depth - 1];
    const size_t columns = view.qkv.stride;
    size_t row = 0;
    for (size_t i = 0; i < view.batch.lengths.size(); ++i) {
      const size_t count = view.batch.lengths[i];
      std::copy_n(view.qkv.row(row), count * columns, kept.data() + growing_.starts[i] * columns);
      row += count;
    }
  }

 private:
  Growing& growing_;
};

}  // namespace

Status Network::Open(const Batch& batch, std::span<const uint32_t> room, const float* weights) {
  Impl& m = *impl_;
  EW_TRY(m.Begin(batch, false));
  EW_CHECK(room.size() == batch.lengths.size());
  Growing& g = m.growing;
  g.lengths = batch.lengths;
  g.room.assign(room.begin(), room.end());
  g.starts.clear();
  size_t rows = 0;  // never more than a batch has, whose memory is taken at once
  for (const uint32_t most : room) {
    g.starts.push_back(rows);
    rows += most;
  }
  g.qkv.resize(m.spec.n_layers);
  for (std::vector<float>& kept : g.qkv) kept.resize(std::max(rows, m.room()) * m.qkv_dim());
  m.Rotations(m.lengths, g.room, false);
  Keeper keeper(&g);
  return m.WithPass(weights, {.visitor = &keeper},
                    [&](const Impl::Pass& pass) { return m.ForwardToHidden(batch, pass); });
}

Status Network::Append(std::span<const uint32_t> sequences, std::span<const int32_t> tokens,
                       const float* weights) {
  EW_CHECK(sequences.size() == tokens.size());
  Impl& m = *impl_;
  Growing& g = m.growing;
  std::vector<uint32_t> totals;
  g.step_starts.clear();
  g.step_lengths.clear();
  for (const uint32_t i : sequences) {
    EW_CHECK(g.lengths[i] < g.room[i]);
    g.step_starts.push_back(g.starts[i]);
    g.step_lengths.push_back(++g.lengths[i]);
    totals.push_back(g.room[i]);
  }
  Batch batch;
  batch.tokens.assign(tokens.begin(), tokens.end());
  batch.targets.assign(tokens.size(), kNoTarget);
  batch.lengths.assign(tokens.size(), 1);
  EW_TRY(m.Begin(batch, false));
  m.Rotations(g.step_lengths, totals, true);
  return m.WithPass(weights, {.growing = &g},
                    [&](const Impl::Pass& pass) { return m.ForwardToHidden(batch, pass); });
}

}  // namespace edgewise::train
