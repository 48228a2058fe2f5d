// EncodeTensor: decode, check, encode and measure one tensor, a piece at a time over the pool.
#include <algorithm>
#include <cmath>

#include "base/strings.h"
#include "compress/quantize/quantize.h"
#include "quant/block_parts.h"

namespace edgewise {
namespace {

constexpr uint64_t kSegmentValues =
    1u << 16;  // of one unit of work: its floats stay in the second-level cache
constexpr uint64_t kPieceValues = 1u << 22;  // handed to the sink at once; 16 MiB as F32

// A run of values inside one tensor: whole rows, or a part of one long row.
struct Segment {
  uint64_t first = 0;  // value
  uint64_t count = 0;
  double squared_error = 0;
  double squared_value = 0;
  EncodeProblem problem;  // its place counts from `first`
};

// Sums with eight partial sums, so that the compiler can use vector adds; the order is fixed.
void Measure(const float* values, const float* decoded, Segment* segment) {
  double errors[8] = {}, squares[8] = {};
  const size_t n = segment->count;
  size_t i = 0;
  for (; i + 8 <= n; i += 8) {
    for (size_t lane = 0; lane < 8; ++lane) {
      const double value = values[i + lane];
      const double error = value - decoded[i + lane];
      errors[lane] += error * error;
      squares[lane] += value * value;
    }
  }
  for (; i < n; ++i) {
    const double error = static_cast<double>(values[i]) - decoded[i];
    errors[0] += error * error;
    squares[0] += static_cast<double>(values[i]) * values[i];
  }
  for (size_t lane = 0; lane < 8; ++lane) {
    segment->squared_error += errors[lane];
    segment->squared_value += squares[lane];
  }
}

class TensorEncoder {
 public:
  TensorEncoder(const TensorView& source, DType to, std::span<const float> importance)
      : source_(source), from_(Info(source.dtype)), to_(Info(to)), importance_(importance) {}

  // Encodes one segment to `out`. `values` and `decoded` hold segment->count floats.
  void Encode(Segment* segment, float* values, float* decoded, std::byte* out) const {
    const size_t n = segment->count;
    source_.Decode(segment->first, n, values);
    const bool copy = from_.id == to_.id;
    segment->problem = copy ? FindNotFinite(values, n) : FindEncodeProblem(to_.id, values, n);
    if (segment->problem.fault != EncodeFault::kNone) return;
    if (copy) {
      source_.CopyBlocks(segment->first, n, out);
      return;
    }
    EncodeValues(segment->first, values, n, out);
    to_.decode(out, decoded, n);
    Measure(values, decoded, segment);
  }

 private:
  // Row by row when there are importance weights, because these belong to columns.
  void EncodeValues(uint64_t first, const float* values, size_t n, std::byte* out) const {
    if (importance_.empty()) {
      to_.encode(values, nullptr, out, n);
      return;
    }
    const uint64_t columns = source_.shape.columns();
    for (size_t done = 0; done < n;) {
      const uint64_t column = (first + done) % columns;
      const size_t part = std::min<uint64_t>(n - done, columns - column);
      to_.encode(values + done, importance_.data() + column, out + to_.RowBytes(done), part);
      done += part;
    }
  }

  const TensorView& source_;
  const DTypeInfo& from_;
  const DTypeInfo& to_;
  std::span<const float> importance_;
};

std::vector<Segment> Cut(const Shape& shape) {
  const uint64_t columns = shape.columns(), total = shape.elements();
  std::vector<Segment> segments;
  const auto add = [&](uint64_t first, uint64_t count) {
    Segment segment;
    segment.first = first;
    segment.count = count;
    segments.push_back(segment);
  };
  if (columns <= kSegmentValues) {
    const uint64_t step = columns == 0 ? 1 : kSegmentValues / columns * columns;
    for (uint64_t first = 0; first < total; first += step)
      add(first, std::min(step, total - first));
    return segments;
  }
  for (uint64_t row = 0; row < total; row += columns) {
    for (uint64_t at = 0; at < columns; at += kSegmentValues)
      add(row + at, std::min(kSegmentValues, columns - at));
  }
  return segments;
}

}  // namespace

Error EncodingError(std::string_view name, uint64_t columns, DType to,
                    const EncodeProblem& problem) {
  const auto row = static_cast<unsigned long long>(problem.at / columns);
  const auto column = static_cast<unsigned long long>(problem.at % columns);
  const std::string tensor(name);
  if (problem.fault == EncodeFault::kNotFinite) {
    return MakeError(Code::kBadData,
                     "tensor %s holds NaN or infinity at row %llu, column %llu: the weights are "
                     "damaged; get the model again",
                     tensor.c_str(), row, column);
  }
  if (problem.fault == EncodeFault::kDense) {
    const unsigned group = Info(to).sparse_group;
    const char* other =
        FormOf(to) != nullptr ? ", or use --method gptq, which prunes as it quantizes" : "";
    return MakeError(Code::kInvalidArgument,
                     "tensor %s, row %llu, columns %llu to %llu: more than %u weights, which %s "
                     "cannot hold; prune the model first (`edgewise prune --sparsity %u:%u`)%s",
                     tensor.c_str(), row, column, column + group - 1, group / 2, Info(to).name,
                     group / 2, group, other);
  }
  const bool bf16 = to == DType::kBF16 || to == DType::kS24_BF16;
  return MakeError(Code::kBadData,
                   "tensor %s, row %llu, column %llu: the value is too large for %s (at most %s); "
                   "use --to %s",
                   tensor.c_str(), row, column, Info(to).name, bf16 ? "3.39e38" : "65504",
                   bf16 ? "f32" : "bf16 or f32");
}

double EncodeError::rmse() const {
  return values == 0 ? 0 : std::sqrt(squared_error / static_cast<double>(values));
}

double EncodeError::relative_rmse() const {
  return squared_value == 0 ? 0 : std::sqrt(squared_error / squared_value);
}

Result<EncodeError> EncodeTensor(std::string_view name, const TensorView& source, DType to,
                                 std::span<const float> importance, ThreadPool* pool,
                                 FunctionRef<Status(std::span<const std::byte> bytes)> sink) {
  const DTypeInfo& info = Info(to);
  EW_CHECK(source.shape.columns() % info.block == 0);
  EW_CHECK(importance.empty() || importance.size() == source.shape.columns());
  EW_CHECK(info.encode != nullptr || source.dtype == to);
  EncodeError total;
  total.values = source.shape.elements();
  const TensorEncoder encoder(source, to, importance);
  std::vector<Segment> segments = Cut(source.shape);

  const uint64_t largest = segments.empty() ? 0 : segments.front().count;
  std::vector<float> scratch(2 * largest * static_cast<size_t>(pool->size()));
  std::vector<std::byte> piece;
  for (size_t begin = 0; begin < segments.size();) {
    size_t end = begin;
    uint64_t values = 0;
    while (end < segments.size() && values + segments[end].count <= kPieceValues)
      values += segments[end++].count;
    piece.resize(info.RowBytes(values));
    pool->ParallelFor(end - begin, 1, [&](size_t from, size_t until, int thread) {
      float* mine = scratch.data() + 2 * largest * static_cast<size_t>(thread);
      for (size_t i = begin + from; i < begin + until; ++i) {
        encoder.Encode(&segments[i], mine, mine + largest,
                       piece.data() + info.RowBytes(segments[i].first - segments[begin].first));
      }
    });
    for (size_t i = begin; i < end; ++i) {
      if (segments[i].problem.fault != EncodeFault::kNone) {
        EncodeProblem problem = segments[i].problem;
        problem.at += segments[i].first;
        return EncodingError(name, source.shape.columns(), to, problem);
      }
      total.squared_error += segments[i].squared_error;
      total.squared_value += segments[i].squared_value;
    }
    EW_TRY(sink(piece));
    begin = end;
  }
  return total;
}

uint64_t EncodingBytes(const TensorView& source, DType to, int threads) {
  const uint64_t values = std::min(kPieceValues, source.shape.elements());
  const uint64_t segment = std::min(kSegmentValues, values);
  return Info(source.dtype).RowBytes(values) + Info(to).RowBytes(values) +
         2 * segment * static_cast<uint64_t>(threads) * sizeof(float);
}

}  // namespace edgewise
