#include "calibrate/walk.h"

#include <algorithm>
#include <utility>

#include "base/strings.h"

namespace edgewise {

uint64_t TokenCount(const TokenSequences& sequences) {
  uint64_t count = 0;
  for (const auto& sequence : sequences) count += sequence.size();
  return count;
}

Result<ActivationWalk> ActivationWalk::Create(const Checkpoint& checkpoint,
                                              TokenSequences sequences, ThreadPool* pool) {
  size_t longest = 0;
  for (const auto& sequence : sequences) longest = std::max(longest, sequence.size());
  if (longest == 0) return MakeError(Code::kInvalidArgument, "no tokens to calibrate with");
  EW_TRY(LayerStream stream, LayerStream::Create(checkpoint, static_cast<uint32_t>(longest), pool));
  ActivationWalk walk(std::move(stream), std::move(sequences));
  const size_t dim = walk.spec().dim;
  uint64_t tokens = 0;
  for (const auto& sequence : walk.sequences_) {
    walk.first_.push_back(tokens);
    tokens += sequence.size();
  }
  walk.x_.resize(tokens * dim);
  walk.scratch_.resize(longest * dim);
  for (size_t i = 0; i < walk.sequences_.size(); ++i) {
    EW_TRY(walk.stream_.Embed(walk.sequences_[i], walk.x_.data() + walk.first_[i] * dim));
  }
  if (const auto embedding = checkpoint.Find("token_embd.weight")) {
    checkpoint.DropPages(*embedding);
  }
  return walk;
}

Status ActivationWalk::VisitSequence(size_t index, LinearTap tap) {
  const size_t dim = spec().dim, n = sequences_[index].size();
  std::copy_n(x_.data() + first_[index] * dim, n * dim, scratch_.data());
  return stream_.Run(scratch_.data(), n, tap);
}

Status ActivationWalk::Visit(LinearTap tap) {
  for (size_t i = 0; i < sequences_.size(); ++i) EW_TRY(VisitSequence(i, tap));
  return Ok{};
}

Status ActivationWalk::Pass(LinearTap tap) {
  for (size_t i = 0; i < sequences_.size(); ++i) {
    EW_TRY(stream_.Run(x_.data() + first_[i] * spec().dim, sequences_[i].size(), tap));
  }
  return Ok{};
}

Status ActivationWalk::VisitOutput(
    FunctionRef<void(const float* rows, size_t n, size_t stride)> tap) {
  const size_t dim = spec().dim;
  for (size_t i = 0; i < sequences_.size(); ++i) {
    const size_t n = sequences_[i].size();
    stream_.Normalize(x_.data() + first_[i] * dim, n, scratch_.data());
    tap(scratch_.data(), n, dim);
  }
  return Ok{};
}

}  // namespace edgewise
