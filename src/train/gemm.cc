#include "train/gemm.h"

#include <algorithm>
#include <cstdlib>
#include <new>

#include "base/round_up.h"
#include "kernels/kernels.h"

namespace edgewise::train {
namespace {

constexpr size_t kSlabBytesA = 1 << 20;    // of packed rows of a, used at once: second-level cache
constexpr size_t kSlabBytesB = 8 << 20;    // of packed columns of b, used by many such: third level
constexpr size_t kBlockBytes = 512 << 10;  // of the columns of b that a thread uses: second level
constexpr size_t kBlockRows = 512;
constexpr size_t kBlocksPerThread = 8;  // so that a thread that others disturb does fewer
constexpr size_t kPiecePanels = 4;      // where values along k are contiguous
constexpr size_t kPieceLanes = 256;     // 1 KiB of each row where lanes are contiguous,
constexpr size_t kPieceK = 64;          // of no more rows than address translation remembers

// The size of the parts when `n` is cut into the fewest parts of at most `most`, each but the last
// the same multiple of `step`.
size_t EvenPart(size_t n, size_t most, size_t step) {
  const size_t limit = std::max(step, most / step * step);
  const size_t parts = (n + limit - 1) / limit;
  return RoundUp((n + parts - 1) / parts, step);
}

}  // namespace

char* Gemm::Buffer::Reserve(size_t bytes) {
  if (bytes > size) {
    data.reset();
    size = RoundUp(bytes, 4096);
    data.reset(static_cast<char*>(std::aligned_alloc(4096, size)));
    if (!data) throw std::bad_alloc();
  }
  return data.get();
}

void Gemm::Buffer::Free::operator()(char* p) const { std::free(p); }

Gemm::Gemm(ThreadPool* pool, Precision precision)
    : Gemm(pool, precision == Precision::kF32 ? kernels::Active().gemm_f32
                                              : kernels::Active().gemm_bf16) {}

Gemm::Gemm(ThreadPool* pool, const kernels::GemmKernel& kernel) : pool_(pool), kernel_(kernel) {}

// ---- packing ----

size_t Gemm::Slab::PieceLanes() const {
  return AlongK() ? kPiecePanels * panel : std::max<size_t>(1, kPieceLanes / panel) * panel;
}
size_t Gemm::Slab::PieceK() const { return AlongK() ? k : std::min(k, kPieceK); }
size_t Gemm::Slab::Pieces() const {
  return (lanes + PieceLanes() - 1) / PieceLanes() * ((k + PieceK() - 1) / PieceK());
}

// Pieces of the same k follow one another.
void Gemm::Slab::Pack(size_t piece, size_t value_bytes) const {
  const size_t across = (lanes + PieceLanes() - 1) / PieceLanes();
  const size_t lane = piece % across * PieceLanes(), p = piece / across * PieceK();
  kernels::GemmPackArgs args = {};
  args.lane_stride = AlongK() ? matrix->stride : 1;
  args.k_stride = AlongK() ? 1 : matrix->stride;
  args.from = matrix->data + (first + lane) * args.lane_stride + (k_first + p) * args.k_stride;
  args.lanes = std::min(PieceLanes(), lanes - lane);
  args.k = std::min(PieceK(), k - p);
  args.to = packed + lane / panel * panel_stride + p * panel * value_bytes;
  args.panel_stride = panel_stride;
  pack(args);
}

void Gemm::Slab::Set(size_t first_lane, size_t lane_count, size_t first_k, size_t k_count,
                     size_t lane_bytes) {
  first = first_lane;
  lanes = lane_count;
  k_first = first_k;
  k = k_count;
  panel_stride = panel * lane_bytes;
}

// Packs a, and b unless it is null.
void Gemm::Pack(const Slab& a, const Slab* b) {
  const size_t a_pieces = a.Pieces(), pieces = a_pieces + (b ? b->Pieces() : 0);
  pool_->ParallelFor(pieces, 1, [&](size_t begin, size_t end, int) {
    for (size_t piece = begin; piece < end; ++piece) {
      if (piece < a_pieces) {
        a.Pack(piece, kernel_.value_bytes);
      } else {
        b->Pack(piece - a_pieces, kernel_.value_bytes);
      }
    }
  });
}

// ---- the product ----

// c is the element of the slabs' first row and column.
void Gemm::MultiplySlabs(const Slab& a, const Slab& b, float* c, size_t c_stride, bool accumulate) {
  const size_t k = RoundUp(a.k, kernel_.k_step);
  size_t rows = EvenPart(a.lanes, kBlockRows, a.panel);
  size_t columns = EvenPart(b.lanes, kBlockBytes / (k * kernel_.value_bytes), b.panel);
  const auto blocks = [&] {
    return (a.lanes + rows - 1) / rows * ((b.lanes + columns - 1) / columns);
  };
  const size_t wanted = kBlocksPerThread * static_cast<size_t>(pool_->size());
  while (blocks() < wanted && rows > 4 * a.panel) rows = RoundUp(rows / 2, a.panel);
  while (blocks() < wanted && columns > 2 * b.panel) columns = RoundUp(columns / 2, b.panel);
  const size_t down = (a.lanes + rows - 1) / rows;
  pool_->ParallelFor(blocks(), 1, [&](size_t begin, size_t end, int) {
    for (size_t block = begin; block < end; ++block) {
      const size_t i = block % down * rows, j = block / down * columns;
      kernels::GemmBlockArgs args = {};
      args.a = a.packed + i / a.panel * a.panel_stride;
      args.a_stride = a.panel_stride;
      args.b = b.packed + j / b.panel * b.panel_stride;
      args.b_stride = b.panel_stride;
      args.rows = std::min(rows, a.lanes - i);
      args.columns = std::min(columns, b.lanes - j);
      args.k = k;
      args.c = c + i * c_stride + j;
      args.c_stride = c_stride;
      args.accumulate = accumulate;
      kernel_.multiply(args);
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
  const size_t value_bytes = kernel_.value_bytes, lane_bytes = depth * value_bytes;
  const size_t rows = EvenPart(m, kSlabBytesA / lane_bytes, kernel_.a_lanes);
  const size_t columns = EvenPart(n, kSlabBytesB / lane_bytes, kernel_.b_lanes);
  Slab a_slab{&a, true, kernel_.a_lanes, kernel_.pack_a};
  Slab b_slab{&b, false, kernel_.b_lanes, kernel_.pack_b};
  a_slab.packed = a_.Reserve(rows * lane_bytes);
  b_slab.packed = b_.Reserve(columns * lane_bytes);
  for (size_t j = 0; j < n; j += columns) {
    for (size_t p = 0; p < k; p += depth) {
      const size_t part = std::min(depth, k - p);
      const size_t packed_bytes = RoundUp(part, kernel_.k_step) * value_bytes;
      b_slab.Set(j, std::min(columns, n - j), p, part, packed_bytes);
      for (size_t i = 0; i < m; i += rows) {
        a_slab.Set(i, std::min(rows, m - i), p, part, packed_bytes);
        Pack(a_slab, i == 0 ? &b_slab : nullptr);
        MultiplySlabs(a_slab, b_slab, c + i * c_stride + j, c_stride, accumulate || p > 0);
      }
    }
  }
}

}  // namespace edgewise::train
