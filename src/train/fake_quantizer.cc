#include "train/fake_quantizer.h"

#include <algorithm>
#include <cstdint>

#include "base/check.h"
#include "base/strings.h"
#include "quant/encodable.h"

namespace edgewise::train {
namespace {

constexpr size_t kPieceValues = 1u << 14;  // 64 KiB of floats, a multiple of every block

Error ProblemError(const Parameter& parameter, DType format, size_t at, EncodeFault fault) {
  const uint64_t columns = parameter.shape.columns();
  const std::string place = Format("tensor %s, row %llu, column %llu", parameter.name.c_str(),
                                   static_cast<unsigned long long>(at / columns),
                                   static_cast<unsigned long long>(at % columns));
  if (fault == EncodeFault::kDense) {
    const unsigned group = Info(format).sparse_group;
    return MakeError(Code::kInvalidArgument,
                     "%s: more than %u of %u weights are not 0, which %s cannot hold; prune the "
                     "model first and train with --keep-zeros",
                     place.c_str(), group / 2, group, Info(format).name);
  }
  return MakeError(Code::kBadData, "%s: the value is %s; try a lower learning rate", place.c_str(),
                   fault == EncodeFault::kNotFinite
                       ? "not finite"
                       : Format("too large for %s", Info(format).name).c_str());
}

// Errors: those of a format that this parameter cannot have whatever its values.
Status CheckFormat(const Parameter& parameter, DType format) {
  const DTypeInfo& info = Info(format);
  if (info.encode == nullptr) {
    return MakeError(Code::kInvalidArgument,
                     "tensor %s: %s cannot be written, so nothing can be "
                     "trained in it",
                     parameter.name.c_str(), info.name);
  }
  if (parameter.shape.columns() % info.block == 0) return Ok{};
  return MakeError(Code::kInvalidArgument, "tensor %s: rows of %llu are not blocks of %u as %s has",
                   parameter.name.c_str(),
                   static_cast<unsigned long long>(parameter.shape.columns()), info.block,
                   info.name);
}

}  // namespace

Status CheckFormats(std::span<const Parameter> parameters, std::span<const DType> formats,
                    bool keep_zeros, const float* weights) {
  if (formats.empty()) return Ok{};
  if (formats.size() != parameters.size()) {
    return MakeError(Code::kInvalidArgument, "%zu formats for %zu tensors", formats.size(),
                     parameters.size());
  }
  for (size_t i = 0; i < formats.size(); ++i) {
    const Parameter& parameter = parameters[i];
    EW_TRY(CheckFormat(parameter, formats[i]));
    const float* values = weights + parameter.offset;
    const size_t count = parameter.shape.elements();
    const EncodeProblem problem = FindEncodeProblem(formats[i], values, count);
    if (problem.fault != EncodeFault::kNone) {
      return ProblemError(parameter, formats[i], problem.at, problem.fault);
    }
    if (!keep_zeros || parameter.shape.rank() != 2 || KeepsZeros(formats[i])) continue;
    if (const size_t zeros = std::count(values, values + count, 0.0f); zeros > 0) {
      return MakeError(Code::kInvalidArgument,
                       "tensor %s: %zu weights are 0 and would not stay so in %s; sparse formats, "
                       "q8_0, q6_k, q5_0, q4_0, q3_k and the plain floats keep zeros",
                       parameter.name.c_str(), zeros, Info(formats[i]).name);
    }
  }
  return Ok{};
}

FakeQuantizer::FakeQuantizer(std::span<const Parameter> parameters, std::span<const DType> formats,
                             ThreadPool* pool)
    : parameters_(parameters.begin(), parameters.end()), pool_(pool) {
  if (formats.empty()) return;
  EW_CHECK(formats.size() == parameters_.size());
  for (const Parameter& parameter : parameters_) {
    size_ = std::max(size_, parameter.offset + parameter.shape.elements());
  }
  for (size_t i = 0; i < formats.size(); ++i) {
    const Parameter& parameter = parameters_[i];
    const size_t count = parameter.shape.elements();
    for (size_t done = 0; done < count; done += kPieceValues) {
      pieces_.push_back({&parameter, &Info(formats[i]), parameter.offset + done,
                         std::min(kPieceValues, count - done)});
      const Piece& piece = pieces_.back();
      blocks_bytes_ = std::max(blocks_bytes_, piece.format->RowBytes(piece.count));
    }
  }
  scratch_.resize(blocks_bytes_ * static_cast<size_t>(pool->size()));
}

Result<const float*> FakeQuantizer::Apply(const float* weights) {
  if (pieces_.empty()) return weights;
  seen_.resize(size_);
  EW_TRY(ApplyTo(weights, seen_.data()));
  return seen_.data();
}

Status FakeQuantizer::ApplyTo(const float* weights, float* seen) {
  std::vector<EncodeProblem> problems(pieces_.size());
  pool_->ParallelFor(pieces_.size(), 1, [&](size_t begin, size_t end, int thread) {
    std::byte* blocks = scratch_.data() + blocks_bytes_ * static_cast<size_t>(thread);
    for (size_t i = begin; i < end; ++i) {
      const Piece& piece = pieces_[i];
      const float* values = weights + piece.offset;
      problems[i] = FindEncodeProblem(piece.format->id, values, piece.count);
      if (problems[i].fault != EncodeFault::kNone) continue;
      piece.format->encode(values, nullptr, blocks, piece.count);
      piece.format->decode(blocks, seen + piece.offset, piece.count);
    }
  });
  for (size_t i = 0; i < pieces_.size(); ++i) {
    if (problems[i].fault == EncodeFault::kNone) continue;
    const Piece& piece = pieces_[i];
    return ProblemError(*piece.parameter, piece.format->id,
                        piece.offset - piece.parameter->offset + problems[i].at, problems[i].fault);
  }
  return Ok{};
}

}  // namespace edgewise::train
