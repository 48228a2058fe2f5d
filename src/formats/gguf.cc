#include "formats/gguf.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <new>
#include <type_traits>
#include <utility>

#include "base/bytes.h"
#include "base/strings.h"
#include "formats/gguf_header.h"

namespace edgewise {
namespace {

using U64 = unsigned long long;

constexpr uint32_t kOldestVersion = 2;
constexpr uint64_t kMaxTensors = 1'000'000;
constexpr uint64_t kMaxPairs = 100'000;
constexpr uint64_t kMaxKeyBytes = 65'535;
constexpr uint64_t kMaxNameBytes = 256;
constexpr uint64_t kMaxStringBytes = 64ull << 20;
// What all metadata may take in memory, where an empty string costs sizeof(std::string).
constexpr uint64_t kMaxMetadataBytes = 256ull << 20;
constexpr uint64_t kMinAlignment = 8;
constexpr uint64_t kMaxAlignment = 64 << 10;
// The fewest bytes that a pair (key length, one letter, type, u8) and a tensor info (name length,
// one letter, rank, one dimension, type, offset) can take.
constexpr uint64_t kMinPairBytes = 8 + 1 + 4 + 1;
constexpr uint64_t kMinTensorInfoBytes = 8 + 1 + 4 + 8 + 4 + 8;

// A tensor as the file declares it; `offset` counts from the data section.
struct TensorInfo {
  std::string name;
  DType dtype;
  Shape shape;
  TensorLayout layout;
  uint64_t bytes;
  uint64_t offset;
};

// Reads one header, field by field in file order.
class HeaderParser {
 public:
  explicit HeaderParser(std::span<const std::byte> bytes) : bytes_(bytes), reader_(bytes) {}

  Result<GgufHeader> Parse(uint64_t file_bytes);

 private:
  Status ReadCounts(GgufHeader* header);
  Result<std::string> ReadString(const char* what, uint64_t max_bytes);
  Status ReadPair(Metadata* metadata);
  Result<MetaValue> ReadValue(MetaType type);
  Result<MetaValue> ReadArray();
  Result<MetaArray> ReadItems(MetaType element, uint64_t count);
  template <class T>
  Result<std::vector<T>> ReadNumbers(uint64_t count);
  Result<std::vector<std::string>> ReadStrings(uint64_t count);
  Result<bool> ReadBool();
  Result<TensorInfo> ReadTensorInfo();
  Status ReadTensorFields(TensorInfo* info);
  Status Charge(uint64_t bytes);
  Error Bad(uint64_t offset, const std::string& what) const {
    return MakeError(Code::kBadData, "at byte %llu: %s", static_cast<U64>(offset), what.c_str());
  }

  std::span<const std::byte> bytes_;
  ByteReader reader_;
  uint64_t metadata_bytes_ = 0;
  uint64_t pair_count_ = 0;
  uint64_t tensor_count_ = 0;
};

// Counts `bytes` of memory against what metadata may take.
Status HeaderParser::Charge(uint64_t bytes) {
  if (AddOverflows(metadata_bytes_, bytes, &metadata_bytes_) ||
      metadata_bytes_ > kMaxMetadataBytes) {
    return Bad(reader_.offset(), "the metadata takes more than " + FormatBytes(kMaxMetadataBytes));
  }
  return Ok{};
}

Status HeaderParser::ReadCounts(GgufHeader* header) {
  EW_TRY(const auto magic, reader_.ReadText(4));
  if (magic != "GGUF") {
    return MakeError(Code::kBadData, "not a GGUF file: it starts with %s, not \"GGUF\"",
                     Quote(magic).c_str());
  }
  EW_TRY(header->version, reader_.Read<uint32_t>());
  const uint32_t swapped = __builtin_bswap32(header->version);
  if (swapped >= 1 && swapped <= kGgufVersion) {
    return MakeError(Code::kUnsupported,
                     "a big-endian GGUF file (version %u); only little-endian files are read",
                     swapped);
  }
  if (header->version < kOldestVersion || header->version > kGgufVersion) {
    return MakeError(Code::kUnsupported, "GGUF version %u; versions %u to %u are read",
                     header->version, kOldestVersion, kGgufVersion);
  }
  EW_TRY(tensor_count_, reader_.Read<uint64_t>());
  EW_TRY(pair_count_, reader_.Read<uint64_t>());
  if (tensor_count_ > kMaxTensors) {
    return Bad(8, Format("%llu tensors; at most %llu are read", static_cast<U64>(tensor_count_),
                         static_cast<U64>(kMaxTensors)));
  }
  if (pair_count_ > kMaxPairs) {
    return Bad(16, Format("%llu metadata pairs; at most %llu are read",
                          static_cast<U64>(pair_count_), static_cast<U64>(kMaxPairs)));
  }
  EW_TRY(reader_.CheckCount(pair_count_, kMinPairBytes).In("metadata pairs"));
  EW_TRY(reader_.CheckCount(tensor_count_, kMinTensorInfoBytes).In("tensor infos"));
  return Ok{};
}

Result<std::string> HeaderParser::ReadString(const char* what, uint64_t max_bytes) {
  const uint64_t start = reader_.offset();
  EW_TRY(const auto length, reader_.Read<uint64_t>());
  if (length > max_bytes) {
    return Bad(start, Format("%s of %llu bytes; at most %llu are read", what,
                             static_cast<U64>(length), static_cast<U64>(max_bytes)));
  }
  EW_TRY(const auto text, reader_.ReadText(length));
  return std::string(text);
}

Status HeaderParser::ReadPair(Metadata* metadata) {
  const uint64_t start = reader_.offset();
  EW_TRY(const auto key, ReadString("a metadata key", kMaxKeyBytes));
  if (key.empty()) return Bad(start, "an empty metadata key");
  const std::string where = "metadata key " + Quote(key);
  if (metadata->Find(key) != nullptr) return Bad(start, where + " appears twice");
  EW_TRY(Charge(key.size() + sizeof(std::pair<std::string, MetaValue>)).In(where));
  EW_TRY(const auto type, reader_.Read<uint32_t>().In(where));
  EW_TRY(auto value, ReadValue(static_cast<MetaType>(type)).In(where));
  metadata->Set(key, std::move(value));
  return Ok{};
}

Result<bool> HeaderParser::ReadBool() {
  const uint64_t start = reader_.offset();
  EW_TRY(const auto value, reader_.Read<uint8_t>());
  if (value > 1) return Bad(start, Format("a bool of value %u, not 0 or 1", value));
  return value == 1;
}

Result<MetaValue> HeaderParser::ReadValue(MetaType type) {
  const auto number = [this]<class T>(T) -> Result<MetaValue> {
    EW_TRY(const T value, reader_.Read<T>());
    return MetaValue(value);
  };
  switch (type) {
    case MetaType::kU8:
      return number(uint8_t{});
    case MetaType::kI8:
      return number(int8_t{});
    case MetaType::kU16:
      return number(uint16_t{});
    case MetaType::kI16:
      return number(int16_t{});
    case MetaType::kU32:
      return number(uint32_t{});
    case MetaType::kI32:
      return number(int32_t{});
    case MetaType::kF32:
      return number(float{});
    case MetaType::kU64:
      return number(uint64_t{});
    case MetaType::kI64:
      return number(int64_t{});
    case MetaType::kF64:
      return number(double{});
    case MetaType::kBool: {
      EW_TRY(const bool value, ReadBool());
      return MetaValue(value);
    }
    case MetaType::kString: {
      EW_TRY(auto text, ReadString("a string", kMaxStringBytes));
      EW_TRY(Charge(text.size()));
      return MetaValue(std::move(text));
    }
    case MetaType::kArray:
      return ReadArray();
  }
  return Bad(reader_.offset() - 4, Format("unknown value type %u", static_cast<uint32_t>(type)));
}

Result<MetaValue> HeaderParser::ReadArray() {
  const uint64_t start = reader_.offset();
  EW_TRY(const auto type, reader_.Read<uint32_t>());
  const auto element = static_cast<MetaType>(type);
  if (element == MetaType::kArray) {
    return MakeError(Code::kUnsupported, "at byte %llu: an array of arrays",
                     static_cast<U64>(start));
  }
  EW_TRY(const auto count, reader_.Read<uint64_t>());
  EW_TRY(auto array, ReadItems(element, count));
  array.element = element;
  return MetaValue(std::move(array));
}

// Reads the items of an array whose element type is not yet known to exist.
Result<MetaArray> HeaderParser::ReadItems(MetaType element, uint64_t count) {
  MetaArray array;
  const auto numbers = [&]<class T>(T) -> Result<MetaArray> {
    EW_TRY(array.values, ReadNumbers<T>(count));
    return std::move(array);
  };
  switch (element) {
    case MetaType::kU8:
      return numbers(uint8_t{});
    case MetaType::kI8:
      return numbers(int8_t{});
    case MetaType::kU16:
      return numbers(uint16_t{});
    case MetaType::kI16:
      return numbers(int16_t{});
    case MetaType::kU32:
      return numbers(uint32_t{});
    case MetaType::kI32:
      return numbers(int32_t{});
    case MetaType::kF32:
      return numbers(float{});
    case MetaType::kU64:
      return numbers(uint64_t{});
    case MetaType::kI64:
      return numbers(int64_t{});
    case MetaType::kF64:
      return numbers(double{});
    case MetaType::kBool: {
      const uint64_t start = reader_.offset();
      EW_TRY(auto values, ReadNumbers<uint8_t>(count));
      for (size_t i = 0; i < values.size(); ++i) {
        if (values[i] > 1)
          return Bad(start + i, Format("a bool of value %u, not 0 or 1", values[i]));
      }
      array.values = std::move(values);
      return array;
    }
    case MetaType::kString: {
      EW_TRY(array.values, ReadStrings(count));
      return array;
    }
    case MetaType::kArray:
      break;
  }
  return Bad(reader_.offset() - 12,
             Format("unknown array element type %u", static_cast<uint32_t>(element)));
}

template <class T>
Result<std::vector<T>> HeaderParser::ReadNumbers(uint64_t count) {
  EW_TRY(reader_.CheckCount(count, sizeof(T)));
  EW_TRY(Charge(count * sizeof(T)));
  EW_TRY(const auto bytes, reader_.ReadBytes(count * sizeof(T)));
  std::vector<T> values(count);
  if (count > 0) std::memcpy(values.data(), bytes.data(), bytes.size());
  return values;
}

Result<std::vector<std::string>> HeaderParser::ReadStrings(uint64_t count) {
  EW_TRY(reader_.CheckCount(count, sizeof(uint64_t)));
  EW_TRY(Charge(count * sizeof(std::string)));
  std::vector<std::string> values;
  values.reserve(count);
  for (uint64_t i = 0; i < count; ++i) {
    EW_TRY(auto text,
           ReadString("a string", kMaxStringBytes).In(Format("item %llu", static_cast<U64>(i))));
    EW_TRY(Charge(text.size()));
    values.push_back(std::move(text));
  }
  return values;
}

Result<TensorInfo> HeaderParser::ReadTensorInfo() {
  const uint64_t start = reader_.offset();
  TensorInfo info = {};
  EW_TRY(info.name, ReadString("a tensor name", kMaxNameBytes));
  if (info.name.empty()) return Bad(start, "an empty tensor name");
  EW_TRY(ReadTensorFields(&info).In("tensor " + Quote(info.name)));
  return info;
}

Status HeaderParser::ReadTensorFields(TensorInfo* info) {
  const uint64_t start = reader_.offset();
  EW_TRY(const auto rank, reader_.Read<uint32_t>());
  if (rank < 1 || rank > static_cast<uint32_t>(Shape::kMaxRank)) {
    return Bad(start, Format("%u dimensions; 1 to %d are possible", rank, Shape::kMaxRank));
  }
  std::array<uint64_t, Shape::kMaxRank> dims = {};
  for (uint32_t i = 0; i < rank; ++i) {
    EW_TRY(dims[rank - 1 - i], reader_.Read<uint64_t>());
    if (dims[rank - 1 - i] == 0) return Bad(reader_.offset() - 8, "a dimension of 0");
  }
  EW_TRY(info->shape, Shape::Make(std::span(dims).first(rank)));
  EW_TRY(const auto type, reader_.Read<uint32_t>());
  const bool packed = (type & 0xFFFF'0000) == kGgufPackedTag;
  const auto dtype = DTypeFromGgufId(packed ? type ^ kGgufPackedTag : type);
  if (!dtype) {
    return MakeError(Code::kUnsupported, "at byte %llu: its ggml type number %u is not one we read",
                     static_cast<U64>(reader_.offset() - 4), type);
  }
  info->dtype = *dtype;
  info->layout = packed ? TensorLayout::kPacked : TensorLayout::kRows;
  EW_TRY(info->bytes, TensorBytes(*dtype, info->shape, info->layout));
  EW_TRY(info->offset, reader_.Read<uint64_t>());
  return Ok{};
}

// Fails unless the tensors are aligned, inside the data section and apart from each other.
Status CheckExtents(std::span<const TensorInfo> infos, uint64_t alignment, uint64_t data_bytes) {
  std::vector<const TensorInfo*> by_offset;
  by_offset.reserve(infos.size());
  for (const TensorInfo& info : infos) {
    const std::string where = "tensor " + Quote(info.name);
    if (info.offset % alignment != 0) {
      return MakeError(Code::kBadData,
                       "%s: its offset %llu is not a multiple of the alignment %llu", where.c_str(),
                       static_cast<U64>(info.offset), static_cast<U64>(alignment));
    }
    if (info.offset > data_bytes || info.bytes > data_bytes - info.offset) {
      return MakeError(
          Code::kBadData,
          "%s: its %llu bytes at offset %llu pass the end of the data section (%llu bytes); "
          "the file may be truncated",
          where.c_str(), static_cast<U64>(info.bytes), static_cast<U64>(info.offset),
          static_cast<U64>(data_bytes));
    }
    by_offset.push_back(&info);
  }
  std::sort(by_offset.begin(), by_offset.end(),
            [](const TensorInfo* a, const TensorInfo* b) { return a->offset < b->offset; });
  for (size_t i = 1; i < by_offset.size(); ++i) {
    const TensorInfo& before = *by_offset[i - 1];
    if (before.offset + before.bytes > by_offset[i]->offset) {
      return MakeError(Code::kBadData, "tensors %s and %s overlap", Quote(before.name).c_str(),
                       Quote(by_offset[i]->name).c_str());
    }
  }
  return Ok{};
}

Result<GgufHeader> HeaderParser::Parse(uint64_t file_bytes) {
  const bool whole = bytes_.size() == file_bytes;
  GgufHeader header;
  EW_TRY(ReadCounts(&header));
  for (uint64_t i = 0; i < pair_count_; ++i) EW_TRY(ReadPair(&header.metadata));
  EW_TRY(header.alignment, GgufAlignment(header.metadata));

  std::vector<TensorInfo> infos;
  EW_TRY(reader_.CheckCount(tensor_count_, kMinTensorInfoBytes).In("tensor infos"));
  infos.reserve(tensor_count_);
  for (uint64_t i = 0; i < tensor_count_; ++i) {
    EW_TRY(auto info, ReadTensorInfo().In(Format("tensor info %llu", static_cast<U64>(i))));
    infos.push_back(std::move(info));
  }
  // A file without tensors may end before the data section would begin.
  header.data_offset = std::min(AlignUp(reader_.offset(), header.alignment), file_bytes);
  EW_TRY(CheckExtents(infos, header.alignment, file_bytes - header.data_offset));

  for (TensorInfo& info : infos) {
    const uint64_t offset = header.data_offset + info.offset;
    const std::string where = "tensor " + Quote(info.name);
    const TensorView view = {info.dtype, info.shape, whole ? bytes_.data() + offset : nullptr,
                             info.bytes, info.layout};
    header.offsets.push_back(offset);
    if (!header.tensors.Add(std::move(info.name), view)) {
      return MakeError(Code::kBadData, "%s appears twice", where.c_str());
    }
  }
  return header;
}

}  // namespace

Result<uint64_t> GgufAlignment(const Metadata& metadata) {
  const MetaValue* value = metadata.Find(kGgufAlignmentKey);
  if (value == nullptr) return uint64_t{kGgufDefaultAlignment};
  const auto* alignment = std::get_if<uint32_t>(value);
  if (alignment == nullptr || !std::has_single_bit(*alignment) || *alignment < kMinAlignment ||
      *alignment > kMaxAlignment) {
    return MakeError(Code::kBadData,
                     "metadata key \"%s\" holds %s (%s), not a u32 power of two from %llu to %llu",
                     kGgufAlignmentKey, Describe(*value).c_str(), MetaTypeName(TypeOf(*value)),
                     static_cast<U64>(kMinAlignment), static_cast<U64>(kMaxAlignment));
  }
  return uint64_t{*alignment};
}

Result<GgufHeader> ParseGgufHeader(std::span<const std::byte> bytes, uint64_t file_bytes) {
  try {
    return HeaderParser(bytes).Parse(file_bytes);
  } catch (const std::bad_alloc&) {
    return MakeError(Code::kOutOfMemory, "not enough memory for the file's metadata");
  }
}

Result<GgufFile> GgufFile::Parse(std::span<const std::byte> bytes) {
  EW_TRY(auto header, ParseGgufHeader(bytes, bytes.size()));
  GgufFile file;
  file.metadata_ = std::move(header.metadata);
  file.tensors_ = std::move(header.tensors);
  file.version_ = header.version;
  file.data_offset_ = header.data_offset;
  file.file_bytes_ = bytes.size();
  return file;
}

Result<GgufFile> GgufFile::Open(const std::string& path) {
  EW_TRY(auto map, MappedFile::Open(path));
  auto shared = std::make_shared<MappedFile>(std::move(map));
  EW_TRY(auto file, Parse(shared->bytes()).In(path));
  file.map_ = std::move(shared);
  return file;
}

Result<bool> IsGguf(const std::string& path) {
  EW_TRY(const MappedFile map, MappedFile::Open(path));
  const auto bytes = map.bytes();
  return bytes.size() >= 4 && std::memcmp(bytes.data(), "GGUF", 4) == 0;
}

}  // namespace edgewise
