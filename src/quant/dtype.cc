#include "quant/dtype.h"

#include "quant/codecs.h"

namespace edgewise {
namespace {

using namespace quant;  // NOLINT(google-build-using-namespace): the table below reads as one

constexpr DTypeInfo kTable[] = {
    {DType::kF32, "f32", 0, 1, 4, DecodeF32, EncodeF32},
    {DType::kF16, "f16", 1, 1, 2, DecodeF16, EncodeF16},
    {DType::kBF16, "bf16", 30, 1, 2, DecodeBF16, EncodeBF16},
    {DType::kQ4_0, "q4_0", 2, 32, 18, DecodeQ4_0, EncodeQ4_0},
    {DType::kQ4_1, "q4_1", 3, 32, 20, DecodeQ4_1, EncodeQ4_1},
    {DType::kQ5_0, "q5_0", 6, 32, 22, DecodeQ5_0, EncodeQ5_0},
    {DType::kQ5_1, "q5_1", 7, 32, 24, DecodeQ5_1, EncodeQ5_1},
    {DType::kQ8_0, "q8_0", 8, 32, 34, DecodeQ8_0, EncodeQ8_0},
    {DType::kQ2_K, "q2_k", 10, 256, 84, DecodeQ2_K, EncodeQ2_K},
    {DType::kQ3_K, "q3_k", 11, 256, 110, DecodeQ3_K, EncodeQ3_K},
    {DType::kQ4_K, "q4_k", 12, 256, 144, DecodeQ4_K, EncodeQ4_K},
    {DType::kQ5_K, "q5_k", 13, 256, 176, DecodeQ5_K, EncodeQ5_K},
    {DType::kQ6_K, "q6_k", 14, 256, 210, DecodeQ6_K, EncodeQ6_K},
    {DType::kIQ4_NL, "iq4_nl", 20, 32, 18, DecodeIQ4_NL, EncodeIQ4_NL},
    {DType::kIQ4_XS, "iq4_xs", 23, 256, 136, DecodeIQ4_XS, EncodeIQ4_XS},
    {DType::kS24_Q4, "s24_q4", 0x2404, 64, 26, DecodeS24_Q4, EncodeS24_Q4, 4},
    {DType::kS24_Q8, "s24_q8", 0x2408, 64, 42, DecodeS24_Q8, EncodeS24_Q8, 4},
    {DType::kBM_Q4, "bm_q4", 0x2414, 64, 26, DecodeBM_Q4, EncodeBM_Q4, 64},
    {DType::kBM_Q8, "bm_q8", 0x2418, 64, 42, DecodeBM_Q8, EncodeBM_Q8, 64},
    {DType::kS24_F16, "s24_f16", 0x2410, 16, 18, DecodeS24_F16, EncodeS24_F16, 4},
    {DType::kS24_BF16, "s24_bf16", 0x2411, 16, 18, DecodeS24_BF16, EncodeS24_BF16, 4},
    {DType::kI8, "i8", 24, 1, 1, DecodeI8, nullptr},
    {DType::kI16, "i16", 25, 1, 2, DecodeI16, nullptr},
    {DType::kI32, "i32", 26, 1, 4, DecodeI32, nullptr},
    {DType::kI64, "i64", 27, 1, 8, DecodeI64, nullptr},
    {DType::kF64, "f64", 28, 1, 8, DecodeF64, EncodeF64},
};

constexpr bool RowsFollowEnum() {
  int i = 0;
  for (const DTypeInfo& row : kTable) {
    if (static_cast<int>(row.id) != i++) return false;
  }
  return i == kDTypeCount;
}
static_assert(RowsFollowEnum());

constexpr char Lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; }

bool EqualIgnoringCase(std::string_view a, std::string_view b) {
  if (a.size() != b.size()) return false;
  for (size_t i = 0; i < a.size(); ++i) {
    if (Lower(a[i]) != Lower(b[i])) return false;
  }
  return true;
}

}  // namespace

const DTypeInfo& Info(DType type) { return kTable[static_cast<size_t>(type)]; }

std::optional<DType> DTypeFromName(std::string_view name) {
  for (const DTypeInfo& row : kTable) {
    if (EqualIgnoringCase(row.name, name)) return row.id;
  }
  return std::nullopt;
}

std::optional<DType> DTypeFromGgufId(uint32_t gguf_id) {
  for (const DTypeInfo& row : kTable) {
    if (static_cast<uint32_t>(row.gguf_id) == gguf_id) return row.id;
  }
  return std::nullopt;
}

std::span<const DTypeInfo> AllDTypes() { return kTable; }

}  // namespace edgewise
