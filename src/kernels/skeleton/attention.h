// Attention with an online softmax, written once over the float vectors S. Keys come in blocks that
// start at multiples of 32, and a query passes through its blocks in the same steps whether it is
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

constexpr size_t kKeyBlock = 32;
constexpr size_t kQueryTile = 4;

// ---- values c to c + kWidth - 1 of a stored vector; LoadPart: fewer than kWidth, padded with
// zeros ----

template <class S>
struct StoredF32 {
  static typename S::V Load(const char* row, size_t c) { return S::LoadBytes(row + 4 * c); }
  static typename S::V LoadPart(const char* row, size_t c, size_t count) {
    char buffer[4 * S::kWidth] = {};
    memcpy(buffer, row + 4 * c, 4 * count);
    return S::LoadBytes(buffer);
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
};

// Vectors of this format hold a multiple of 32 values, so there are no parts.
template <class S>
struct StoredQ8_0 {
  static typename S::V Load(const char* row, size_t c) {
    const BlockQ8_0& block = reinterpret_cast<const BlockQ8_0*>(row)[c / 32];
    return S::Mul(S::SetF16(block.d), S::LoadInt8(block.qs + c % 32));
  }
  static typename S::V LoadPart(const char* row, size_t c, size_t) { return Load(row, c); }
};

// ---- one block of keys for N queries that all see keys lo <= t < hi of it ----

struct QueryState {
  const float* q;
  float* out;
  float largest;
  float total;
};

template <class S, class Stored, size_t N>
struct AttendStep {
  using V = typename S::V;
  static constexpr size_t W = S::kWidth;
  const AttendArgs& a;
  QueryState* const* state;
  size_t lo, hi, start;   // keys lo to hi of the block of 32 that begins at `start`
  float p[N][kKeyBlock];  // scores, then weights; 0 outside lo..hi
  float correction[N];

  const char* Key(size_t t) const { return static_cast<const char*>(a.k) + t * a.k_stride; }
  const char* Value(size_t t) const { return static_cast<const char*>(a.v) + t * a.v_stride; }

  void Scores() {
    for (size_t j = 0; j < N; ++j) memset(p[j], 0, sizeof(p[j]));
    for (size_t t = lo; t < hi; ++t) {
      const char* k = Key(t);
      V sum[N];
      for (size_t j = 0; j < N; ++j) sum[j] = S::Zero();
      size_t c = 0;
      for (; c + W <= a.head_dim; c += W) {
        const V v = Stored::Load(k, c);
        for (size_t j = 0; j < N; ++j) sum[j] = S::Fma(S::Load(state[j]->q + c), v, sum[j]);
      }
      if (c < a.head_dim) {
        const size_t count = a.head_dim - c;
        const V v = Stored::LoadPart(k, c, count);
        for (size_t j = 0; j < N; ++j) {
          sum[j] = S::Fma(LoadPart<S>(state[j]->q + c, count), v, sum[j]);
        }
      }
      for (size_t j = 0; j < N; ++j) p[j][t - start] = S::Sum(sum[j]) * a.scale;
    }
  }

  void Softmax(size_t j) {
    if (a.softcap > 0) VectorOps<S>::Softcap(a.softcap, p[j], kKeyBlock);
    for (size_t s = 0; s < lo - start; ++s) p[j][s] = -INFINITY;
    for (size_t s = hi - start; s < kKeyBlock; ++s) p[j][s] = -INFINITY;
    V lanes = S::Load(p[j]);
    for (size_t s = W; s < kKeyBlock; s += W) lanes = S::Max(S::Load(p[j] + s), lanes);
    const float block_largest = S::Largest(lanes);
    const float old = state[j]->largest;
    const float largest = block_largest > old ? block_largest : old;
    float corrections[W];
    S::Store(corrections, Exp<S>(S::Set(old - largest)));
    correction[j] = corrections[0];
    const V shift = S::Set(largest);
    V sum = S::Zero();
    for (size_t s = 0; s < kKeyBlock; s += W) {
      const V e = Exp<S>(S::Sub(S::Load(p[j] + s), shift));
      S::Store(p[j] + s, e);
      sum = S::Add(sum, e);
    }
    state[j]->largest = largest;
    state[j]->total = state[j]->total * correction[j] + S::Sum(sum);
  }

  // out = out * correction + sum over keys of p * v, for C vectors of columns from c.
  template <size_t C>
  void Accumulate(size_t c) {
    V sum[N][C];
    for (size_t j = 0; j < N; ++j) {
      for (size_t u = 0; u < C; ++u) {
        sum[j][u] = S::Mul(S::Load(state[j]->out + c + u * W), S::Set(correction[j]));
      }
    }
    for (size_t t = lo; t < hi; ++t) {
      for (size_t u = 0; u < C; ++u) {
        const V v = Stored::Load(Value(t), c + u * W);
        for (size_t j = 0; j < N; ++j) {
          sum[j][u] = S::Fma(S::Set(p[j][t - start]), v, sum[j][u]);
        }
      }
    }
    for (size_t j = 0; j < N; ++j) {
      for (size_t u = 0; u < C; ++u) S::Store(state[j]->out + c + u * W, sum[j][u]);
    }
  }

  void AccumulatePart(size_t c) {
    const size_t count = a.head_dim - c;
    for (size_t j = 0; j < N; ++j) {
      V sum = S::Mul(LoadPart<S>(state[j]->out + c, count), S::Set(correction[j]));
      for (size_t t = lo; t < hi; ++t) {
        sum = S::Fma(S::Set(p[j][t - start]), Stored::LoadPart(Value(t), c, count), sum);
      }
      StorePart<S>(state[j]->out + c, sum, count);
    }
  }

  void Run() {
    Scores();
    for (size_t j = 0; j < N; ++j) Softmax(j);
    constexpr size_t kVectors = N == 1 ? 4 : 2;
    size_t c = 0;
    for (; c + kVectors * W <= a.head_dim; c += kVectors * W) Accumulate<kVectors>(c);
    for (; c + W <= a.head_dim; c += W) Accumulate<1>(c);
    if (c < a.head_dim) AccumulatePart(c);
  }
};

// ---- the loops ----

inline size_t LaterOf(size_t a, size_t b) { return a > b ? a : b; }
inline size_t EarlierOf(size_t a, size_t b) { return a < b ? a : b; }

// Queries i to i + count - 1, count <= kQueryTile. They share the loads of a key block which all of
// them see alike.
template <class S, class Stored>
void AttendTile(const AttendArgs& a, size_t i, size_t count) {
  QueryState states[kQueryTile];
  QueryState* pointers[kQueryTile];
  size_t first = a.first_key[i], end = a.end_key[i];
  for (size_t j = 0; j < count; ++j) {
    states[j] = {a.q + (i + j) * a.q_stride, a.out + (i + j) * a.out_stride, -INFINITY, 0.0f};
    pointers[j] = &states[j];
    memset(states[j].out, 0, a.head_dim * sizeof(float));
    first = EarlierOf(first, a.first_key[i + j]);
    end = LaterOf(end, a.end_key[i + j]);
  }
  for (size_t start = first / kKeyBlock * kKeyBlock; start < end; start += kKeyBlock) {
    size_t lo[kQueryTile], hi[kQueryTile];
    bool alike = count == kQueryTile;
    for (size_t j = 0; j < count; ++j) {
      lo[j] = LaterOf(start, a.first_key[i + j]);
      hi[j] = EarlierOf(start + kKeyBlock, a.end_key[i + j]);
      alike = alike && lo[j] == lo[0] && hi[j] == hi[0];
    }
    if (alike && lo[0] < hi[0]) {
      AttendStep<S, Stored, kQueryTile>{a, pointers, lo[0], hi[0], start, {}, {}}.Run();
      continue;
    }
    for (size_t j = 0; j < count; ++j) {
      if (lo[j] >= hi[j]) continue;
      AttendStep<S, Stored, 1>{a, pointers + j, lo[j], hi[j], start, {}, {}}.Run();
    }
  }
  for (size_t j = 0; j < count; ++j) {
    const typename S::V total = S::Set(states[j].total);
    Map<S>(states[j].out, states[j].out, a.head_dim,
           [total](typename S::V v) { return S::Div(v, total); });
  }
}

template <class S, class Stored>
void AttendStored(const AttendArgs& a) {
  for (size_t i = 0; i < a.n; i += kQueryTile) {
    AttendTile<S, Stored>(a, i, EarlierOf(a.n - i, kQueryTile));
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
  }
}

}  // namespace
}  // namespace edgewise::kernels
