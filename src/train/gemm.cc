#include "train/gemm.h"

#include <algorithm>
#include <cstdlib>
#include <new>

#include "base/round_up.h"
#include "kernels/kernels.h"

namespace edgewise::train {
namespace {

// Packed columns of b, used by all threads for many rows of a: third-level cache.
constexpr size_t kColumnBytes = 8 << 20;
// Packed rows of a, and the columns of b that they meet at a time: second-level cache. A thread
// packs the rows that it multiplies, so that no line of them moves between cores.
constexpr size_t kRowBytes = 192 << 10, kColumnBlockBytes = 512 << 10;
// So that a thread that others disturb does fewer tasks.
constexpr size_t kTasksPerThread = 8;
// What a task has at least where it can: columns, of which fewer are hardly worth the packing of
// rows, and panels of rows, of which fewer are hardly worth the reading of columns.
constexpr size_t kLeastColumns = 1024, kLeastPanels = 3;
constexpr size_t kPiecePanels = 4;   // of a task of packing, where values along k are contiguous
constexpr size_t kPieceLanes = 256;  // 1 KiB of each row where lanes are contiguous,
constexpr size_t kPieceK = 64;       // of no more rows than address translation remembers

size_t Parts(size_t n, size_t size) { return (n + size - 1) / size; }

// The size of the parts when `n` is cut into the fewest parts of at most `most`, each but the last
// the same multiple of `step`.
size_t EvenPart(size_t n, size_t most, size_t step) {
  const size_t limit = std::max(step, most / step * step);
  return RoundUp(Parts(n, Parts(n, limit)), step);
}

// Packs lanes [lane, lane + lanes) and k [k_first, k_first + k) of a factor, whose lanes are rows
// of `matrix` as it is meant or columns.
void PackLanes(const Matrix& matrix, bool lanes_are_rows, size_t lane, size_t lanes, size_t k_first,
               size_t k, char* to, size_t panel_stride,
               void (*pack)(const kernels::GemmPackArgs& args)) {
  const bool along_k = matrix.transposed != lanes_are_rows;
  kernels::GemmPackArgs args = {};
  args.lane_stride = along_k ? matrix.stride : 1;
  args.k_stride = along_k ? 1 : matrix.stride;
  args.from = matrix.data + lane * args.lane_stride + k_first * args.k_stride;
  args.lanes = lanes;
  args.k = k;
  args.to = to;
  args.panel_stride = panel_stride;
  pack(args);
}

}  // namespace

char* Gemm::Buffer::Reserve(size_t bytes) {
  if (bytes > size) {
    data.reset();
    size = 0;
    data.reset(static_cast<char*>(std::aligned_alloc(4096, RoundUp(bytes, 4096))));
    if (!data) throw std::bad_alloc();
    size = RoundUp(bytes, 4096);
  }
  return data.get();
}

void Gemm::Buffer::Free::operator()(char* p) const { std::free(p); }

Gemm::Gemm(ThreadPool* pool, Precision precision)
    : Gemm(pool, precision == Precision::kF32 ? kernels::Active().gemm_f32
                                              : kernels::Active().gemm_bf16) {}

Gemm::Gemm(ThreadPool* pool, const kernels::GemmKernel& kernel)
    : pool_(pool), kernel_(kernel), rows_(static_cast<size_t>(pool->size())) {}

// ---- packing ----

// A product and how it is cut. Packed columns lie part by part along k, `depth` values each.
struct Gemm::Product {
  Matrix a, b;
  size_t m;
  float* c;
  size_t c_stride;
  bool accumulate;
  size_t depth;

  // Bytes of a packed lane of the part that begins at `first` of the range.
  size_t LaneBytes(const kernels::GemmKernel& kernel, Range k, size_t first) const {
    return RoundUp(std::min(depth, k.count - first), kernel.k_step) * kernel.value_bytes;
  }
};

// Pieces of the same k follow one another.
void Gemm::PackColumns(const Product& product, Range columns, Range k, char* packed) {
  const size_t panel = kernel_.b_lanes, value_bytes = kernel_.value_bytes;
  const size_t lanes = RoundUp(columns.count, panel), depth = product.depth;
  const bool along_k = product.b.transposed;
  const size_t piece_lanes =
      along_k ? kPiecePanels * panel : std::max(panel, kPieceLanes / panel * panel);
  const size_t piece_k = along_k ? depth : std::min(depth, kPieceK);
  const size_t across = Parts(columns.count, piece_lanes), down = Parts(depth, piece_k);
  const auto pack = [&](size_t piece) {
    const size_t lane = piece % across * piece_lanes;
    const size_t part = piece / across / down * depth, p = piece / across % down * piece_k;
    const size_t part_k = std::min(depth, k.count - part);
    if (p >= part_k) return;
    const size_t lane_bytes = product.LaneBytes(kernel_, k, part);
    PackLanes(product.b, false, columns.first + lane, std::min(piece_lanes, columns.count - lane),
              k.first + part + p, std::min(piece_k, part_k - p),
              packed + part * lanes * value_bytes + lane * lane_bytes + p * panel * value_bytes,
              panel * lane_bytes, kernel_.pack_b);
  };
  pool_->ParallelFor(Parts(k.count, depth) * down * across, 1, [&](size_t begin, size_t end, int) {
    for (size_t piece = begin; piece < end; ++piece) pack(piece);
  });
}

// ---- the product ----

void Gemm::MultiplyRows(const Product& product, Range columns, Range k, const char* packed) {
  const size_t lanes = RoundUp(columns.count, kernel_.b_lanes);
  const size_t lane_bytes = product.LaneBytes(kernel_, k, 0);
  size_t rows = EvenPart(product.m, kRowBytes / lane_bytes, kernel_.a_lanes), width = lanes;
  const auto tasks = [&] { return Parts(product.m, rows) * Parts(lanes, width); };
  const auto halve = [&](size_t* size, size_t panel, size_t least, size_t count) {
    while (tasks() < count && *size > least) *size = std::max(least, RoundUp(*size / 2, panel));
  };
  const size_t threads = rows_.size(), wanted = kTasksPerThread * threads;
  halve(&width, kernel_.b_lanes, RoundUp(kLeastColumns, kernel_.b_lanes), wanted);
  halve(&rows, kernel_.a_lanes, kLeastPanels * kernel_.a_lanes, wanted);
  halve(&width, kernel_.b_lanes, 2 * kernel_.b_lanes, threads);
  const size_t across = Parts(lanes, width);
  const size_t block = EvenPart(width, kColumnBlockBytes / lane_bytes, kernel_.b_lanes);
  for (Buffer& buffer : rows_) buffer.Reserve(rows * lane_bytes);
  pool_->ParallelFor(tasks(), 1, [&](size_t begin, size_t end, int thread) {
    char* a = rows_[static_cast<size_t>(thread)].data.get();
    for (size_t task = begin; task < end; ++task) {
      const size_t i = task / across * rows, left = task % across * width;
      const size_t right = std::min(columns.count, left + width);
      for (size_t part = 0; part < k.count; part += product.depth) {
        const size_t bytes = product.LaneBytes(kernel_, k, part);
        kernels::GemmBlockArgs args = {};
        args.a = a;
        args.a_stride = kernel_.a_lanes * bytes;
        args.b_stride = kernel_.b_lanes * bytes;
        args.rows = std::min(rows, product.m - i);
        args.k = bytes / kernel_.value_bytes;
        args.c_stride = product.c_stride;
        args.accumulate = product.accumulate || k.first + part > 0;
        PackLanes(product.a, true, i, args.rows, k.first + part,
                  std::min(product.depth, k.count - part), a, args.a_stride, kernel_.pack_a);
        for (size_t j = left; j < right; j += block) {
          args.b = packed + part * lanes * kernel_.value_bytes + j * bytes;
          args.columns = std::min(block, right - j);
          args.c = product.c + i * product.c_stride + columns.first + j;
          kernel_.multiply(args);
        }
      }
    }
  });
}

void Gemm::Multiply(const Matrix& a, const Matrix& b, size_t m, size_t n, size_t k, float* c,
                    size_t c_stride, bool accumulate) {
  if (m == 0 || n == 0) return;
  if (k == 0) {
    for (size_t i = 0; i < m && !accumulate; ++i) std::fill_n(c + i * c_stride, n, 0.0f);
    return;
  }
  const size_t depth = EvenPart(k, kernel_.max_k, kernel_.k_step);
  const size_t lane_bytes = depth * kernel_.value_bytes;
  const size_t columns = EvenPart(n, kColumnBytes / lane_bytes, kernel_.b_lanes);
  const size_t parts = std::max<size_t>(1, kColumnBytes / (columns * lane_bytes));
  const size_t range = EvenPart(k, parts * depth, depth);
  const Product product{a, b, m, c, c_stride, accumulate, depth};
  char* packed =
      columns_.Reserve(columns * std::min(range, RoundUp(k, kernel_.k_step)) * kernel_.value_bytes);
  for (size_t j = 0; j < n; j += columns) {
    const Range right{j, std::min(columns, n - j)};
    for (size_t p = 0; p < k; p += range) {
      const Range along{p, std::min(range, k - p)};
      PackColumns(product, right, along, packed);
      MultiplyRows(product, right, along, packed);
    }
  }
}

}  // namespace edgewise::train
