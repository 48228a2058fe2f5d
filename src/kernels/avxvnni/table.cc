// AVX-VNNI, the byte dot product of x86 CPUs without AVX-512: the block formats. Everything else is
// that of AVX2.
#include <immintrin.h>

#include "kernels/avx2/rows.h"
#include "kernels/skeleton/linear_bitmask.h"
#include "kernels/skeleton/linear_packed.h"
#include "kernels/skeleton/linear_sparse.h"
#include "kernels/tables.h"

namespace edgewise::kernels {
namespace {

struct AvxVnniRows : Avx2Rows {
  static constexpr size_t kTokens = 3;   // 6 sums, 6 running dots, 2 weights, 1 activation
  static constexpr bool kBiased = true;  // vpdpbusd takes unsigned weights
  static constexpr bool kPartIsInts = true;
  template <int kLargest, bool kSigned>
  static constexpr size_t kPartSteps = 8;  // a Part holds 8 int32

  template <bool>
  static Part Step(Part part, Bytes w, Bytes x) {
    return _mm256_dpbusd_avx_epi32(part, w, x);
  }
  static Ints Widen(Part part) { return part; }
};

constexpr Kernels Table() {
  Kernels t = {};
  t.name = "avxvnni";
  SetPackedKernels<AvxVnniRows>(&t);
  SetSparseKernels<AvxVnniRows>(&t);
  SetBitmaskKernels<AvxVnniRows>(&t);
  return t;
}

}  // namespace

constinit const Kernels kAvxVnni = Table();

}  // namespace edgewise::kernels
