#include "train/runtime_teacher.h"

namespace edgewise::train {

Result<std::unique_ptr<RuntimeTeacher>> RuntimeTeacher::Create(const Model& model,
                                                               uint32_t sequence,
                                                               ThreadPool* pool) {
  EW_TRY(KvCache cache, KvCache::Create(model.spec(), sequence, kernels::KvFormat::kF16));
  return std::unique_ptr<RuntimeTeacher>(new RuntimeTeacher(model, std::move(cache), pool));
}

Status RuntimeTeacher::Begin(const Batch& batch) {
  batch_ = &batch;
  sequence_ = begin_ = 0;
  end_ = batch.lengths.empty() ? 0 : batch.lengths[0];
  cache_.Clear();
  return Ok{};
}

Status RuntimeTeacher::Logits(std::span<const uint32_t> rows, float* logits) {
  const std::span<const int32_t> tokens = batch_->tokens;
  while (!rows.empty()) {
    while (rows[0] >= end_) {
      begin_ = end_;
      end_ += batch_->lengths[++sequence_];
      cache_.Clear();
    }
    // Rows of this sequence without a gap between them give their logits together.
    size_t count = 1;
    while (count < rows.size() && rows[count] == rows[0] + count && rows[count] < end_) ++count;
    const size_t first = begin_ + cache_.size();
    EW_TRY(forward_.Run(tokens.subspan(first, rows[0] + count - first), &cache_, rows[0] - first,
                        {logits, count * vocab_size_}));
    logits += count * vocab_size_;
    rows = rows.subspan(count);
  }
  return Ok{};
}

}  // namespace edgewise::train
