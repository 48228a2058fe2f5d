#include "pipeline/packing.h"

#include <algorithm>
#include <string_view>
#include <unordered_map>
#include <utility>

#include "base/strings.h"
#include "model/arch/tensors.h"
#include "quant/packed.h"

namespace edgewise {

PackingCount PlanPacking(const ModelSpec& spec, std::vector<TensorPlan>* plan) {
  const std::vector<NeededTensor> needed = NeededTensors(spec);
  std::unordered_map<std::string_view, const NeededTensor*> linear;
  for (const NeededTensor& tensor : needed) {
    if (tensor.linear) linear.emplace(tensor.name, &tensor);
  }
  PackingCount count;
  for (TensorPlan& tensor : *plan) {
    const auto found = linear.find(tensor.name);
    if (found == linear.end() || !IsPacked(tensor.to)) continue;
    const auto& cuts = found->second->cuts;
    const auto inside =
        std::find_if(cuts.begin(), cuts.end(), [](uint64_t row) { return row % kPackedRows != 0; });
    if (inside == cuts.end()) {
      tensor.layout = TensorLayout::kPacked;
      ++count.packed;
      continue;
    }
    if (!tensor.reason.empty()) tensor.reason += "; ";
    tensor.reason += Format("packed at load, because a layer begins at its row %llu",
                            static_cast<unsigned long long>(*inside));
    ++count.left;
  }
  return count;
}

Status RowPacker::Write(std::span<const std::byte> blocks, Sink sink) {
  rows_.insert(rows_.end(), blocks.begin(), blocks.end());
  const size_t row_bytes = Info(type_).RowBytes(columns_), group_bytes = kPackedRows * row_bytes;
  const size_t whole = rows_.size() / group_bytes * group_bytes;
  if (whole == 0) return Ok{};
  packed_.resize(whole);
  for (size_t at = 0; at < whole; at += group_bytes) {
    PackGroup(type_, rows_.data() + at, row_bytes, kPackedRows, columns_, packed_.data() + at);
  }
  rows_.erase(rows_.begin(), rows_.begin() + static_cast<std::ptrdiff_t>(whole));
  return sink(packed_);
}

Status RowPacker::Finish(Sink sink) {
  if (rows_.empty()) return Ok{};
  const size_t row_bytes = Info(type_).RowBytes(columns_);
  packed_.resize(kPackedRows * row_bytes);
  PackGroup(type_, rows_.data(), row_bytes, rows_.size() / row_bytes, columns_, packed_.data());
  rows_.clear();
  return sink(packed_);
}

}  // namespace edgewise
