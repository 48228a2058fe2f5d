#include "kernels/select.h"

#include <cstdlib>
#include <cstring>
#include <iterator>

#include "base/check.h"
#include "kernels/cpu.h"
#include "kernels/tables.h"

namespace edgewise::kernels {
namespace {

bool Always() { return true; }

// One row per level, slowest first. Adding an instruction set is adding a row.
constexpr Level kLevels[] = {
    {&kScalar, Always},
#if defined(__x86_64__)
    {&kAvx2, CpuHasAvx2},
    {&kAvxVnni, CpuHasAvxVnni},
    {&kAvx512Vnni, CpuHasAvx512Vnni},
    {&kAvx512Vbmi2, CpuHasAvx512Vbmi2},
    {&kAvx512Bf16, CpuHasAvx512Bf16},
    {&kAmx, CpuHasAmx},
#elif defined(__aarch64__)
    {&kNeon, Always},
    {&kDotprod, CpuHasDotprod},
    {&kI8mm, CpuHasI8mm},
#endif
};
static_assert(std::size(kLevels) <= kMaxLevels);

template <class Function>
void Fill(Function*& entry, Function* below) {
  if (!entry) entry = below;
}

void FillFrom(const Kernels& below, Kernels& table) {
  for (int i = 0; i < kDTypeCount; ++i) {
    if (!table.linear[i].run) table.linear[i] = below.linear[i];
  }
  if (!table.gemm_f32.multiply) table.gemm_f32 = below.gemm_f32;
  if (!table.gemm_bf16.multiply) table.gemm_bf16 = below.gemm_bf16;
  Fill(table.quantize_q8, below.quantize_q8);
  Fill(table.dot_f32, below.dot_f32);
  Fill(table.rms_norm, below.rms_norm);
  Fill(table.layer_norm, below.layer_norm);
  Fill(table.rope_interleaved, below.rope_interleaved);
  Fill(table.rope_neox, below.rope_neox);
  Fill(table.hadamard, below.hadamard);
  Fill(table.silu_mul, below.silu_mul);
  Fill(table.gelu_tanh_mul, below.gelu_tanh_mul);
  Fill(table.add, below.add);
  Fill(table.scale, below.scale);
  Fill(table.softcap, below.softcap);
  Fill(table.f32_to_f16, below.f32_to_f16);
  Fill(table.attend, below.attend);
  Fill(table.int8_products, below.int8_products);
  Fill(table.log_sum_exp, below.log_sum_exp);
  Fill(table.softmax, below.softmax);
  Fill(table.exp, below.exp);
  Fill(table.sum_squares, below.sum_squares);
  Fill(table.adamw, below.adamw);
}

std::string WrongName(const char* forced, const Selection& selection) {
  std::string message =
      std::string("EDGEWISE_ISA=") + forced + ": not an instruction set of this CPU; it runs";
  for (size_t i = 0; i < selection.count; ++i) {
    message += std::string(i == 0 ? " " : ", ") + selection.tables[i].name;
  }
  return message;
}

const Selection& Selected() {
  static const Selection selection = Select(std::getenv("EDGEWISE_ISA"));
  return selection;
}

}  // namespace

Selection Select(std::span<const Level> levels, const char* forced) {
  Selection selection;
  bool found = !forced;
  for (const Level& level : levels) {
    if (!level.runs_here()) continue;
    Kernels& table = selection.tables[selection.count];
    table = *level.own;
    if (selection.count > 0) FillFrom(selection.tables[selection.count - 1], table);
    const bool named = forced && std::strcmp(forced, table.name) == 0;
    if (!forced || named) selection.active = selection.count;
    found = found || named;
    ++selection.count;
  }
  if (!found) selection.error = WrongName(forced, selection);
  return selection;
}

Selection Select(const char* forced) { return Select(kLevels, forced); }

const Kernels& Active() {
  EW_CHECK(Selected().error.empty());
  return Selected().tables[Selected().active];
}

const char* CheckIsa() { return Selected().error.empty() ? nullptr : Selected().error.c_str(); }

KernelList Available() { return {Selected().tables, Selected().count}; }

}  // namespace edgewise::kernels
