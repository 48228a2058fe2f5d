#include "calibrate/walk.h"

#include <algorithm>
#include <utility>

#include "base/strings.h"

namespace edgewise {

uint64_t TokenCount(std::span<const std::vector<int32_t>> sequences) {
  uint64_t count = 0;
  for (const auto& sequence : sequences) count += sequence.size();
  return count;
}

size_t LongestOf(std::span<const std::vector<int32_t>> sequences) {
  size_t longest = 0;
  for (const auto& sequence : sequences) longest = std::max(longest, sequence.size());
  return longest;
}

Result<ActivationWalk> ActivationWalk::Create(const Checkpoint& checkpoint,
                                              TokenSequences sequences, ThreadPool* pool) {
  const size_t longest = LongestOf(sequences);
  if (longest == 0) return MakeError(Code::kInvalidArgument, "no tokens to calibrate with");
  EW_TRY(LayerStream stream, LayerStream::Create(checkpoint, static_cast<uint32_t>(longest), pool));
  ActivationWalk walk(std::move(stream), std::move(sequences));
  const size_t dim = walk.spec().dim;
  uint64_t tokens = 0;
  for (const auto& sequence : walk.sequences_) {
    walk.first_.push_back(tokens);
    tokens += sequence.size();
  }
  EW_TRY(walk.x_, ScratchMemory::Create(tokens * dim * sizeof(float)));
  walk.scratch_.resize(longest * dim);
  for (size_t i = 0; i < walk.sequences_.size(); ++i) {
    const std::span<float> rows = walk.Rows(i);
    EW_TRY(walk.stream_.Embed(walk.sequences_[i], rows.data()));
    walk.x_.DropPages(std::as_bytes(rows));
  }
  if (const auto embedding = checkpoint.Find("token_embd.weight")) {
    checkpoint.DropPages(*embedding);
  }
  return walk;
}

std::span<float> ActivationWalk::Rows(size_t index) const {
  const size_t dim = spec().dim;
  return {reinterpret_cast<float*>(x_.bytes().data()) + first_[index] * dim,
          sequences_[index].size() * dim};
}

Status ActivationWalk::VisitSequence(size_t index, LinearTap tap) {
  const std::span<const float> stream = Stream(index);
  std::copy(stream.begin(), stream.end(), scratch_.begin());
  x_.DropPages(std::as_bytes(stream));
  return stream_.Run(scratch_.data(), sequences_[index].size(), tap);
}

Status ActivationWalk::Visit(LinearTap tap) {
  for (size_t i = 0; i < sequences_.size(); ++i) EW_TRY(VisitSequence(i, tap));
  return Ok{};
}

Status ActivationWalk::PassSequence(size_t index, LinearTap tap) {
  const std::span<float> stream = Rows(index);
  EW_TRY(stream_.Run(stream.data(), sequences_[index].size(), tap));
  x_.DropPages(std::as_bytes(stream));
  return Ok{};
}

Status ActivationWalk::Pass(LinearTap tap) {
  for (size_t i = 0; i < sequences_.size(); ++i) EW_TRY(PassSequence(i, tap));
  return Ok{};
}

Result<std::array<ColumnMoments, kLinearInputs>> ActivationWalk::PassWithMoments() {
  std::array<ColumnMoments, kLinearInputs> moments;
  for (const LayerMatrix& matrix : matrices()) {
    moments[static_cast<size_t>(matrix.input)] = ColumnMoments(matrix.columns);
  }
  EW_TRY(Pass([&](LinearInput input, const float* rows, size_t n, size_t stride) {
    moments[static_cast<size_t>(input)].Add(rows, n, stride);
    return true;
  }));
  return moments;
}

Status ActivationWalk::VisitOutput(
    FunctionRef<void(const float* rows, size_t n, size_t stride)> tap) {
  const size_t dim = spec().dim;
  for (size_t i = 0; i < sequences_.size(); ++i) {
    const size_t n = sequences_[i].size();
    stream_.Normalize(Stream(i).data(), n, scratch_.data());
    x_.DropPages(std::as_bytes(Stream(i)));
    tap(scratch_.data(), n, dim);
  }
  return Ok{};
}

}  // namespace edgewise
