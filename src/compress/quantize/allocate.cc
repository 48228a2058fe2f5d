#include "compress/quantize/allocate.h"

#include <algorithm>
#include <limits>
#include <numeric>

#include "base/strings.h"

namespace edgewise {
namespace {

constexpr uint64_t kUnits = uint64_t{1} << 17;  // of the table, at most

// Bytes beyond those of the smallest choice of each tensor.
struct Extra {
  explicit Extra(std::span<const TensorChoices> tensors) {
    for (const TensorChoices& choices : tensors) {
      const auto least = std::min_element(choices.begin(), choices.end(),
                                          [](auto a, auto b) { return a.bytes < b.bytes; });
      smallest.push_back(least->bytes);
      for (const FormatChoice& choice : choices) {
        divisor = std::gcd(divisor, choice.bytes - least->bytes);
      }
    }
  }
  std::vector<uint64_t> smallest;
  uint64_t divisor = 0;  // of all extra bytes
};

// Moves single tensors to dearer choices, the best per byte first, while they fit into `left`.
void SpendRest(std::span<const TensorChoices> tensors, uint64_t left, std::vector<size_t>* chosen) {
  for (;;) {
    double best = 0;
    size_t at = 0, to = 0;
    for (size_t t = 0; t < tensors.size(); ++t) {
      const FormatChoice& now = tensors[t][(*chosen)[t]];
      for (size_t i = 0; i < tensors[t].size(); ++i) {
        const FormatChoice& other = tensors[t][i];
        if (other.cost >= now.cost || other.bytes > now.bytes + left) continue;
        const double bytes =
            std::max(1.0, static_cast<double>(other.bytes) - static_cast<double>(now.bytes));
        const double gain = (now.cost - other.cost) / bytes;
        if (gain <= best) continue;
        best = gain;
        at = t;
        to = i;
      }
    }
    if (best == 0) return;
    left = left + tensors[at][(*chosen)[at]].bytes - tensors[at][to].bytes;
    (*chosen)[at] = to;
  }
}

uint64_t AlignedBytes(DType type, const Shape& shape, uint64_t alignment) {
  const uint64_t bytes = Info(type).RowBytes(shape.columns()) * shape.rows();
  return (bytes + alignment - 1) / alignment * alignment;
}

// Of everything in the file but the tensors to choose for.
uint64_t OtherBytes(const FileTarget& target, std::span<const TensorPlan> plan) {
  uint64_t bytes = target.planned;
  for (const TensorPlan& entry : plan) {
    if (CandidateFormats(entry).empty()) continue;
    bytes -= AlignedBytes(entry.to, entry.shape, target.alignment);
  }
  return bytes;
}

}  // namespace

Result<std::vector<size_t>> Allocate(std::span<const TensorChoices> tensors, uint64_t budget) {
  const Extra extra(tensors);
  const uint64_t least = std::accumulate(extra.smallest.begin(), extra.smallest.end(), uint64_t{0});
  if (least > budget) {
    return MakeError(Code::kInvalidArgument, "the smallest formats need %llu bytes, not %llu",
                     static_cast<unsigned long long>(least),
                     static_cast<unsigned long long>(budget));
  }
  uint64_t most = 0;
  for (size_t t = 0; t < tensors.size(); ++t) {
    uint64_t widest = 0;
    for (const FormatChoice& choice : tensors[t]) widest = std::max(widest, choice.bytes);
    most += widest - extra.smallest[t];
  }
  const uint64_t spare = std::min(budget - least, most);
  const uint64_t unit = std::max({uint64_t{1}, extra.divisor, (spare + kUnits - 1) / kUnits});
  const size_t units = spare / unit;
  // cost[u]: the least of the tensors so far with u units; choice[t][u]: how tensor t gets there.
  std::vector<double> cost(units + 1, 0.0), next(units + 1);
  std::vector<std::vector<uint8_t>> choice(tensors.size(), std::vector<uint8_t>(units + 1));
  const auto units_of = [&](size_t t, size_t i) {
    return (tensors[t][i].bytes - extra.smallest[t] + unit - 1) / unit;
  };
  for (size_t t = 0; t < tensors.size(); ++t) {
    std::fill(next.begin(), next.end(), std::numeric_limits<double>::infinity());
    for (size_t i = 0; i < tensors[t].size(); ++i) {
      for (uint64_t u = units_of(t, i); u <= units; ++u) {
        const double total = cost[u - units_of(t, i)] + tensors[t][i].cost;
        if (total >= next[u]) continue;
        next[u] = total;
        choice[t][u] = static_cast<uint8_t>(i);
      }
    }
    std::swap(cost, next);
  }
  std::vector<size_t> chosen(tensors.size());
  uint64_t used = 0, u = units;
  for (size_t t = tensors.size(); t-- > 0;) {
    chosen[t] = choice[t][u];
    used += tensors[t][chosen[t]].bytes;
    u -= units_of(t, chosen[t]);
  }
  SpendRest(tensors, budget - used, &chosen);
  return chosen;
}

Status CheckTarget(const FileTarget& target, std::span<const TensorPlan> plan) {
  const uint64_t other = OtherBytes(target, plan);
  uint64_t least = other, most = other, weights = 0;
  for (const TensorPlan& entry : plan) {
    weights += entry.shape.elements();
    uint64_t low = UINT64_MAX, high = 0;
    for (const DType type : CandidateFormats(entry)) {
      const uint64_t bytes = AlignedBytes(type, entry.shape, target.alignment);
      low = std::min(low, bytes);
      high = std::max(high, bytes);
    }
    if (high == 0) continue;
    least += low;
    most += high;
  }
  if (least <= target.bytes && target.bytes <= most) return Ok{};
  const auto bits = [&](uint64_t bytes) {
    return 8.0 * static_cast<double>(bytes) / static_cast<double>(weights);
  };
  return MakeError(
      Code::kInvalidArgument,
      "no mixture of formats gives a file of %llu bytes: this model takes from %llu (%.3f bits per "
      "weight) in the smallest formats to %llu (%.3f) in f16",
      static_cast<unsigned long long>(target.bytes), static_cast<unsigned long long>(least),
      bits(least), static_cast<unsigned long long>(most), bits(most));
}

void SetChosen(const FormatCost& format, TensorPlan* entry) {
  entry->to = format.type;
  entry->predicted_kl = format.kl;
  entry->reason = Format("predicted KL %.1e", format.kl);
}

Status AllocateFormats(std::span<const TensorCosts> costs, const FileTarget& target,
                       std::vector<TensorPlan>* plan) {
  EW_TRY(CheckTarget(target, *plan));
  std::vector<TensorChoices> tensors;
  for (const TensorCosts& costs_of : costs) {
    TensorChoices choices;
    for (const FormatCost& format : costs_of.formats) {
      const Shape& shape = (*plan)[costs_of.entry].shape;
      choices.push_back({AlignedBytes(format.type, shape, target.alignment), format.kl});
    }
    tensors.push_back(std::move(choices));
  }
  EW_TRY(const auto chosen, Allocate(tensors, target.bytes - OtherBytes(target, *plan)));
  for (size_t t = 0; t < chosen.size(); ++t) {
    SetChosen(costs[t].formats[chosen[t]], &(*plan)[costs[t].entry]);
  }
  return Ok{};
}

}  // namespace edgewise
