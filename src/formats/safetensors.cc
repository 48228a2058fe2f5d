#include "formats/safetensors.h"

#include <algorithm>
#include <array>
#include <new>
#include <optional>
#include <tuple>

#include "base/bytes.h"
#include "base/strings.h"
#include "formats/safetensors_header.h"

namespace edgewise {
namespace {

using U64 = unsigned long long;

// The reference reader's limit.
constexpr uint64_t kMaxHeaderBytes = 100'000'000;

std::optional<DType> DTypeFromSafetensors(std::string_view name) {
  constexpr std::array<std::pair<std::string_view, DType>, 9> kNames = {{
      {"F32", DType::kF32},
      {"F16", DType::kF16},
      {"BF16", DType::kBF16},
      {"F64", DType::kF64},
      {"I8", DType::kI8},
      {"U8", DType::kI8},
      {"I16", DType::kI16},
      {"I32", DType::kI32},
      {"I64", DType::kI64},
  }};
  for (const auto& [text, dtype] : kNames) {
    if (text == name) return dtype;
  }
  return std::nullopt;
}

// Turns a declaration into a view of `data`, whose extent must have exactly the size of the shape.
Result<TensorView> MakeView(const SafetensorsEntry& entry, std::span<const std::byte> data) {
  const auto dtype = DTypeFromSafetensors(entry.dtype);
  if (!dtype) {
    return MakeError(Code::kUnsupported,
                     "values of type %s; F64, F32, F16, BF16, I64, I32, I16, I8 and U8 are read",
                     Quote(entry.dtype).c_str());
  }
  if (entry.shape.size() > static_cast<size_t>(Shape::kMaxRank)) {
    return MakeError(Code::kUnsupported, "%zu dimensions; at most %d are read", entry.shape.size(),
                     Shape::kMaxRank);
  }
  EW_TRY(const auto shape, Shape::Make(entry.shape));
  EW_TRY(const auto bytes, TensorBytes(*dtype, shape));
  if (entry.end < entry.begin || entry.end > data.size()) {
    return MakeError(Code::kBadData,
                     "its data_offsets [%llu, %llu] are not inside the %zu bytes of data",
                     static_cast<U64>(entry.begin), static_cast<U64>(entry.end), data.size());
  }
  if (entry.end - entry.begin != bytes) {
    return MakeError(Code::kBadData, "its data_offsets span %llu bytes, but %s %s takes %llu",
                     static_cast<U64>(entry.end - entry.begin), entry.dtype.c_str(),
                     shape.ToString().c_str(), static_cast<U64>(bytes));
  }
  return TensorView{*dtype, shape, data.data() + entry.begin, bytes};
}

// Fills `index` in the order of the data, which must be covered without gap or overlap.
Status IndexTensors(SafetensorsHeader* header, std::span<const std::byte> data,
                    TensorIndex* index) {
  std::sort(header->entries.begin(), header->entries.end(), [](const auto& a, const auto& b) {
    return std::tie(a.begin, a.end, a.name) < std::tie(b.begin, b.end, b.name);
  });
  uint64_t covered = 0;
  for (SafetensorsEntry& entry : header->entries) {
    const std::string where = "tensor " + Quote(entry.name);
    EW_TRY(const auto view, MakeView(entry, data).In(where));
    if (entry.begin != covered) {
      return MakeError(Code::kBadData,
                       "%s: its data begins at %llu, but the data before it ends at %llu",
                       where.c_str(), static_cast<U64>(entry.begin), static_cast<U64>(covered));
    }
    covered = entry.end;
    if (!index->Add(std::move(entry.name), view)) {
      return MakeError(Code::kBadData, "%s appears twice", where.c_str());
    }
  }
  if (covered != data.size()) {
    return MakeError(Code::kBadData,
                     "the tensors take %llu bytes, but %zu bytes of data follow the header",
                     static_cast<U64>(covered), data.size());
  }
  return Ok{};
}

}  // namespace

Result<SafetensorsFile> SafetensorsFile::Parse(std::span<const std::byte> bytes) {
  ByteReader reader(bytes);
  EW_TRY(const auto length, reader.Read<uint64_t>().In("not a safetensors file"));
  if (length > kMaxHeaderBytes || length > reader.remaining()) {
    return MakeError(Code::kBadData,
                     "not a safetensors file, or truncated: a header of %llu bytes is declared; "
                     "%llu bytes follow "
                     "and at most %llu are read",
                     static_cast<U64>(length), static_cast<U64>(reader.remaining()),
                     static_cast<U64>(kMaxHeaderBytes));
  }
  EW_TRY(const auto text, reader.ReadText(length));
  try {
    EW_TRY(auto header, ParseSafetensorsHeader(text).In("header"));
    SafetensorsFile file;
    EW_TRY(IndexTensors(&header, bytes.subspan(reader.offset()), &file.tensors_));
    file.metadata_ = std::move(header.metadata);
    return file;
  } catch (const std::bad_alloc&) {
    return MakeError(Code::kOutOfMemory, "not enough memory for the file's header");
  }
}

Result<SafetensorsFile> SafetensorsFile::Open(const std::string& path) {
  EW_TRY(auto map, MappedFile::Open(path));
  auto shared = std::make_shared<MappedFile>(std::move(map));
  EW_TRY(auto file, Parse(shared->bytes()).In(path));
  file.map_ = std::move(shared);
  return file;
}

}  // namespace edgewise
