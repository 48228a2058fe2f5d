// Attention with an online softmax, written once over the float vectors S. Keys come in blocks that
// start at multiples of 32 and lie with columns outermost, so that lanes are keys and nothing is
// summed across lanes. A block is decoded once for up to 64 rows (query heads that share the keys),
// or read in place by a few. A row passes through its blocks in the same steps whether it is
// computed alone or with others.
#pragma once

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "kernels/kernels.h"
#include "kernels/skeleton/vector_ops.h"
#include "quant/blocks.h"

namespace edgewise::kernels {
namespace {

constexpr size_t kMaxRows = 64;      // of one pass over the keys
constexpr size_t kColumnChunk = 64;  // of keys and values that are decoded at a time

// ---- Load: columns c to c + kWidth - 1 of a stored value; LoadPart: fewer, padded with zeros;
// LoadKeys: column c of keys s to s + kWidth - 1 of a block ----

template <class S>
struct StoredF32 {
  static typename S::V Load(const char* row, size_t c) { return S::LoadBytes(row + 4 * c); }
  static typename S::V LoadPart(const char* row, size_t c, size_t count) {
    char buffer[4 * S::kWidth] = {};
    memcpy(buffer, row + 4 * c, 4 * count);
    return S::LoadBytes(buffer);
  }
  static typename S::V LoadKeys(const char* block, size_t c, size_t s) {
    return S::LoadBytes(block + 4 * (c * kKeyBlock + s));
  }
};

template <class S>
struct StoredF16 {
  static typename S::V Load(const char* row, size_t c) { return S::LoadF16(row + 2 * c); }
  static typename S::V LoadPart(const char* row, size_t c, size_t count) {
    char buffer[2 * S::kWidth] = {};
    memcpy(buffer, row + 2 * c, 2 * count);
    return S::LoadF16(buffer);
  }
  static typename S::V LoadKeys(const char* block, size_t c, size_t s) {
    return S::LoadF16(block + 2 * (c * kKeyBlock + s));
  }
};

// Vectors of this format hold a multiple of 32 values, so there are no parts.
template <class S>
struct StoredQ8_0 {
  static typename S::V Load(const char* row, size_t c) {
    const BlockQ8_0& block = reinterpret_cast<const BlockQ8_0*>(row)[c / 32];
    return S::Mul(S::SetF16(block.d), S::LoadInt8(block.qs + c % 32));
  }
  static typename S::V LoadPart(const char* row, size_t c, size_t) { return Load(row, c); }
  static typename S::V LoadKeys(const char* block, size_t c, size_t s) {
    const char* group = block + c / 32 * kKeyBlock * sizeof(BlockQ8_0);
    const char* q = group + 2 * kKeyBlock + c % 32 * kKeyBlock + s;
    return S::Mul(S::LoadF16(group + 2 * s), S::LoadInt8(reinterpret_cast<const int8_t*>(q)));
  }
};

template <class S>
struct StoredQ4_0 {
  using Recent = StoredF16<S>;  // keys of a query's own block
  static typename S::V Load(const char* row, size_t c) { return LoadBlock(row, c / 32, c % 32); }
  static typename S::V LoadPart(const char* row, size_t c, size_t) { return Load(row, c); }
  static typename S::V LoadKeys(const char* block, size_t c, size_t s) {
    return LoadBlock(block, c, s);
  }
  // Elements i to i + kWidth - 1 of a block.
  static typename S::V LoadBlock(const char* blocks, size_t index, size_t i) {
    const BlockQ4_1& block = reinterpret_cast<const BlockQ4_1*>(blocks)[index];
    const typename S::V codes = S::LoadNibbles(block.qs + i % 16, i < 16 ? 0 : 4);
    return S::Fma(S::SetF16(block.d), codes, S::SetF16(block.m));
  }
};

// ---- rows: the heads of the queries ----

struct AttendRow {
  const float* q;
  float* out;
  size_t first, end;  // the keys it sees
  size_t lo, hi;      // those in the block at hand; lo == hi: none
  float largest;
  float total;
  float correction;  // of what is summed so far, for the block at hand
};

inline size_t LaterOf(size_t a, size_t b) { return a > b ? a : b; }
inline size_t EarlierOf(size_t a, size_t b) { return a < b ? a : b; }

template <class S, class Stored>
struct AttendPass {
  using V = typename S::V;
  static constexpr size_t W = S::kWidth;
  static constexpr size_t kVectors = kKeyBlock / W;  // of 32 keys, or 32 columns
  // Rows whose sums fill the registers: 32 of 128 bits or 512 bits, 16 of 256 bits.
  static constexpr size_t kTile = W == 4 ? 2 : W == 8 ? 3 : 8;
  static constexpr bool kKeepsRecent = requires { typename Stored::Recent; };

  const AttendArgs& a;
  AttendRow rows[kMaxRows];
  size_t count = 0;
  const char* values = nullptr;              // of the first key of the block at hand
  alignas(64) float p[kMaxRows][kKeyBlock];  // scores, then weights
  alignas(64) float decoded[kColumnChunk * kKeyBlock];

  AttendPass(const AttendArgs& args) : a(args) {}  // the arrays are filled as they are needed

  const char* KeyBlock(size_t start) const {
    return static_cast<const char*>(a.k) + start % a.slots / kKeyBlock * a.k_stride;
  }
  const char* RecentBlock(size_t start) const {
    return static_cast<const char*>(a.recent) +
           start % a.recent_slots / kKeyBlock * a.recent_stride;
  }
  // Columns c to c + W - 1 of value t; 0 beyond the head.
  V LoadValue(size_t t, size_t c) const {
    const char* row = values + t % kKeyBlock * a.v_stride;
    if (c + W <= a.head_dim) return Stored::Load(row, c);
    return c < a.head_dim ? Stored::LoadPart(row, c, a.head_dim - c) : S::Zero();
  }

  // decoded[c - c0][s] = key s of the block, column c.
  template <class Keys>
  void DecodeKeys(const char* block, size_t c0, size_t columns) {
    for (size_t c = 0; c < columns; ++c) {
      for (size_t s = 0; s < kKeyBlock; s += W) {
        S::Store(decoded + c * kKeyBlock + s, Keys::LoadKeys(block, c0 + c, s));
      }
    }
  }

  // decoded[t - start][c - c0] = value t, column c, and 0 up to a multiple of 32 columns.
  void DecodeValues(size_t start, size_t lo, size_t hi, size_t c0, size_t columns) {
    for (size_t t = lo; t < hi; ++t) {
      float* out = decoded + (t - start) * kColumnChunk;
      for (size_t c = 0; c < (columns + kKeyBlock - 1) / kKeyBlock * kKeyBlock; c += W) {
        S::Store(out + c, LoadValue(t, c0 + c));
      }
    }
  }

  // p += q k over columns c0 on, for rows i to i + N - 1; the keys are decoded or read in place.
  template <class Keys, size_t N, bool kDecoded>
  void AddScores(size_t i, const char* block, size_t c0, size_t columns) {
    V sum[N][kVectors];
#pragma GCC unroll 8
    for (size_t j = 0; j < N; ++j) {
#pragma GCC unroll 8
      for (size_t u = 0; u < kVectors; ++u) {
        sum[j][u] = c0 == 0 ? S::Zero() : S::Load(p[i + j] + u * W);
      }
    }
    for (size_t c = 0; c < columns; ++c) {
      V k[kVectors];
#pragma GCC unroll 8
      for (size_t u = 0; u < kVectors; ++u) {
        k[u] = kDecoded ? S::Load(decoded + c * kKeyBlock + u * W)
                        : Keys::LoadKeys(block, c0 + c, u * W);
      }
#pragma GCC unroll 8
      for (size_t j = 0; j < N; ++j) {
        const V q = S::Set(rows[i + j].q[c0 + c]);
#pragma GCC unroll 8
        for (size_t u = 0; u < kVectors; ++u) sum[j][u] = S::Fma(q, k[u], sum[j][u]);
      }
    }
#pragma GCC unroll 8
    for (size_t j = 0; j < N; ++j) {
#pragma GCC unroll 8
      for (size_t u = 0; u < kVectors; ++u) S::Store(p[i + j] + u * W, sum[j][u]);
    }
  }

  // Scores to weights; keys that the row does not see get 0.
  void Softmax(AttendRow* row, float* weights, size_t start) {
    const V scale = S::Set(a.scale);
    for (size_t s = 0; s < kKeyBlock; s += W) {
      S::Store(weights + s, S::Mul(S::Load(weights + s), scale));
    }
    if (a.softcap > 0) VectorOps<S>::Softcap(a.softcap, weights, kKeyBlock);
    for (size_t s = 0; s < row->lo - start; ++s) weights[s] = -INFINITY;
    for (size_t s = row->hi - start; s < kKeyBlock; ++s) weights[s] = -INFINITY;
    V lanes = S::Load(weights);
    for (size_t s = W; s < kKeyBlock; s += W) lanes = S::Max(S::Load(weights + s), lanes);
    const float block_largest = S::Largest(lanes);
    const float old = row->largest;
    const float largest = block_largest > old ? block_largest : old;
    float corrections[W];
    S::Store(corrections, Exp<S>(S::Set(old - largest)));
    row->correction = corrections[0];
    const V shift = S::Set(largest);
    V sum = S::Zero();
    for (size_t s = 0; s < kKeyBlock; s += W) {
      const V e = Exp<S>(S::Sub(S::Load(weights + s), shift));
      S::Store(weights + s, e);
      sum = S::Add(sum, e);
    }
    row->largest = largest;
    row->total = row->total * row->correction + S::Sum(sum);
  }

  // out = out * correction + weights * values for 32 columns from c0 + c on, of which the head has
  // `width`; rows i to i + N - 1 see the same keys.
  template <size_t N, bool kDecoded>
  void AddValues(size_t i, size_t start, size_t c0, size_t c, size_t width) {
    V sum[N][kVectors];
    float part[kKeyBlock];
#pragma GCC unroll 8
    for (size_t j = 0; j < N; ++j) {
      const float* out = rows[i + j].out + c0 + c;
      if (width < kKeyBlock) {
        memset(part, 0, sizeof(part));
        memcpy(part, out, width * sizeof(float));
        out = part;
      }
      const V correction = S::Set(rows[i + j].correction);
#pragma GCC unroll 8
      for (size_t u = 0; u < kVectors; ++u) {
        sum[j][u] = S::Mul(S::Load(out + u * W), correction);
      }
    }
    for (size_t t = rows[i].lo; t < rows[i].hi; ++t) {
      V v[kVectors];
#pragma GCC unroll 8
      for (size_t u = 0; u < kVectors; ++u) {
        v[u] = kDecoded ? S::Load(decoded + (t - start) * kColumnChunk + c + u * W)
                        : LoadValue(t, c0 + c + u * W);
      }
#pragma GCC unroll 8
      for (size_t j = 0; j < N; ++j) {
        const V weight = S::Set(p[i + j][t - start]);
#pragma GCC unroll 8
        for (size_t u = 0; u < kVectors; ++u) sum[j][u] = S::Fma(weight, v[u], sum[j][u]);
      }
    }
#pragma GCC unroll 8
    for (size_t j = 0; j < N; ++j) {
      float* out = rows[i + j].out + c0 + c;
      float* to = width < kKeyBlock ? part : out;
#pragma GCC unroll 8
      for (size_t u = 0; u < kVectors; ++u) S::Store(to + u * W, sum[j][u]);
      if (width < kKeyBlock) memcpy(out, part, width * sizeof(float));
    }
  }

  // True when rows i to i + kTile - 1 exist and see the same keys of the block.
  bool Alike(size_t i) const {
    if (i + kTile > count) return false;
    for (size_t j = 1; j < kTile; ++j) {
      if (rows[i + j].lo != rows[i].lo || rows[i + j].hi != rows[i].hi) return false;
    }
    return rows[i].lo < rows[i].hi;
  }

  bool few() const { return count < 3; }  // decoding apart would not pay

  // p = q k for rows [first, end).
  template <class Keys>
  void ScoreRows(const char* block, size_t first, size_t end) {
    if (first == end) return;
    for (size_t c0 = 0; c0 < a.head_dim; c0 += kColumnChunk) {
      const size_t columns = EarlierOf(kColumnChunk, a.head_dim - c0);
      if (few()) {
        for (size_t i = first; i < end; ++i) AddScores<Keys, 1, false>(i, block, c0, columns);
        continue;
      }
      DecodeKeys<Keys>(block, c0, columns);
      size_t i = first;
      for (; i + kTile <= end; i += kTile) AddScores<Keys, kTile, true>(i, block, c0, columns);
      for (; i < end; ++i) AddScores<Keys, 1, true>(i, block, c0, columns);
    }
  }

  void ScoreBlock(size_t start) {
    size_t beyond = 0;  // the first row that stands in a later block
    if constexpr (kKeepsRecent) {
      while (beyond < count && rows[beyond].end <= start + kKeyBlock) ++beyond;
      ScoreRows<typename Stored::Recent>(RecentBlock(start), 0, beyond);
    }
    ScoreRows<Stored>(KeyBlock(start), beyond, count);
    for (size_t i = 0; i < count; ++i) {
      if (rows[i].lo < rows[i].hi) Softmax(&rows[i], p[i], start);
    }
  }

  void ValueBlock(size_t start, size_t lo, size_t hi) {
    for (size_t c0 = 0; c0 < a.head_dim; c0 += kColumnChunk) {
      const size_t columns = EarlierOf(kColumnChunk, a.head_dim - c0);
      if (!few()) DecodeValues(start, lo, hi, c0, columns);
      for (size_t c = 0; c < columns; c += kKeyBlock) {
        const size_t width = EarlierOf(kKeyBlock, columns - c);
        for (size_t i = 0; i < count;) {
          const bool visible = rows[i].lo < rows[i].hi;
          if (few()) {
            if (visible) AddValues<1, false>(i, start, c0, c, width);
          } else if (Alike(i)) {
            AddValues<kTile, true>(i, start, c0, c, width);
            i += kTile;
            continue;
          } else if (visible) {
            AddValues<1, true>(i, start, c0, c, width);
          }
          ++i;
        }
      }
    }
  }

  void Run() {
    size_t first = rows[0].first, end = rows[0].end;
    for (size_t i = 0; i < count; ++i) {
      memset(rows[i].out, 0, a.head_dim * sizeof(float));
      first = EarlierOf(first, rows[i].first);
      end = LaterOf(end, rows[i].end);
    }
    for (size_t start = first / kKeyBlock * kKeyBlock; start < end; start += kKeyBlock) {
      size_t lo = start + kKeyBlock, hi = start;
      for (size_t i = 0; i < count; ++i) {
        AttendRow& row = rows[i];
        row.lo = LaterOf(start, row.first);
        row.hi = LaterOf(row.lo, EarlierOf(start + kKeyBlock, row.end));
        if (row.lo == row.hi) continue;
        lo = EarlierOf(lo, row.lo);
        hi = LaterOf(hi, row.hi);
      }
      if (lo >= hi) continue;
      values = static_cast<const char*>(a.v) + start % a.slots * a.v_stride;
      ScoreBlock(start);
      ValueBlock(start, lo, hi);
    }
    for (size_t i = 0; i < count; ++i) {
      const V total = S::Set(rows[i].total);
      Map<S>(rows[i].out, rows[i].out, a.head_dim, [total](V v) { return S::Div(v, total); });
    }
  }
};

template <class S, class Stored>
void AttendStored(const AttendArgs& a) {
  AttendPass<S, Stored> pass(a);
  for (size_t item = 0; item < a.n * a.heads; ++item) {
    const size_t query = item / a.heads, head = item % a.heads;
    AttendRow& row = pass.rows[pass.count++];
    row.q = a.q + query * a.q_stride + head * a.head_dim;
    row.out = a.out + query * a.out_stride + head * a.head_dim;
    row.first = a.first_key[query];
    row.end = a.end_key[query];
    row.largest = -INFINITY;
    row.total = 0;
    if (pass.count < kMaxRows && item + 1 < a.n * a.heads) continue;
    pass.Run();
    pass.count = 0;
  }
}

template <class S>
void Attend(const AttendArgs& a) {
  switch (a.format) {
    case KvFormat::kF32:
      return AttendStored<S, StoredF32<S>>(a);
    case KvFormat::kF16:
      return AttendStored<S, StoredF16<S>>(a);
    case KvFormat::kQ8_0:
      return AttendStored<S, StoredQ8_0<S>>(a);
    case KvFormat::kQ4_0:
      return AttendStored<S, StoredQ4_0<S>>(a);
  }
}

}  // namespace
}  // namespace edgewise::kernels
