#include "formats/safetensors_writer.h"

#include <algorithm>
#include <numeric>
#include <string_view>
#include <unordered_set>

#include "base/bytes.h"
#include "base/check.h"
#include "base/json.h"
#include "base/strings.h"
#include "formats/safetensors.h"

namespace edgewise {
namespace {

using U64 = unsigned long long;

// The reference writer pads the header so that the data begins at a multiple of this.
constexpr uint64_t kDataAlignment = 8;

// Bytes of a value, 0 for a name that is not written.
uint64_t ValueBytes(std::string_view dtype) {
  for (const char* name : {"F64", "I64"}) {
    if (dtype == name) return 8;
  }
  for (const char* name : {"F32", "I32"}) {
    if (dtype == name) return 4;
  }
  for (const char* name : {"F16", "BF16", "I16"}) {
    if (dtype == name) return 2;
  }
  return dtype == "U8" || dtype == "I8" ? 1 : 0;
}

Result<uint64_t> BytesOf(const SafetensorsDecl& tensor) {
  uint64_t bytes = ValueBytes(tensor.dtype);
  if (bytes == 0) {
    return MakeError(Code::kInvalidArgument, "tensor %s: values of type %s are not written",
                     Quote(tensor.name).c_str(), Quote(tensor.dtype).c_str());
  }
  for (const uint64_t size : tensor.shape) {
    if (MulOverflows(bytes, size, &bytes)) {
      return MakeError(Code::kBadData, "tensor %s: its size overflows", Quote(tensor.name).c_str());
    }
  }
  return bytes;
}

// Positions of the tensors in the order in which they lie in the file.
std::vector<size_t> FileOrder(const std::vector<SafetensorsDecl>& tensors) {
  std::vector<size_t> order(tensors.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    const uint64_t a_bytes = ValueBytes(tensors[a].dtype), b_bytes = ValueBytes(tensors[b].dtype);
    return a_bytes != b_bytes ? a_bytes > b_bytes : a < b;
  });
  return order;
}

}  // namespace

Result<SafetensorsWriter> SafetensorsWriter::Create(
    const std::string& path, bool overwrite, std::vector<SafetensorsDecl> tensors,
    const std::vector<std::pair<std::string, std::string>>& metadata) {
  JsonObject header;
  if (!metadata.empty()) {
    JsonObject pairs;
    for (const auto& [key, value] : metadata) pairs.emplace_back(key, value);
    header.emplace_back("__metadata__", std::move(pairs));
  }
  std::vector<Extent> extents(tensors.size());
  std::unordered_set<std::string_view> names = {"__metadata__"};
  uint64_t offset = 0;
  for (const size_t i : FileOrder(tensors)) {
    const SafetensorsDecl& tensor = tensors[i];
    if (!names.insert(tensor.name).second) {
      return MakeError(Code::kInvalidArgument, "%s: two tensors are named %s", path.c_str(),
                       Quote(tensor.name).c_str());
    }
    EW_TRY(extents[i].bytes, BytesOf(tensor).In(path));
    extents[i].begin = offset;
    if (AddOverflows(offset, extents[i].bytes, &offset)) {
      return MakeError(Code::kBadData, "%s: its size overflows", path.c_str());
    }
    Json entry;
    entry.Set("dtype", tensor.dtype);
    entry.Set("shape", JsonArray(tensor.shape.begin(), tensor.shape.end()));
    entry.Set("data_offsets", JsonArray{extents[i].begin, offset});
    header.emplace_back(tensor.name, std::move(entry));
  }
  std::string text = Json(std::move(header)).Dump();
  text.resize((text.size() + kDataAlignment - 1) / kDataAlignment * kDataAlignment, ' ');
  const uint64_t length = text.size();
  EW_TRY(AtomicFile file, AtomicFile::Create(path, overwrite));
  EW_TRY(file.Reserve(sizeof(length) + length + offset));
  EW_TRY(file.Write(std::as_bytes(std::span(&length, 1))));
  EW_TRY(file.Write(text));
  SafetensorsWriter writer(std::move(file));
  for (Extent& extent : extents) extent.begin += sizeof(length) + length;
  writer.tensors_ = std::move(tensors);
  writer.extents_ = std::move(extents);
  writer.total_bytes_ = sizeof(length) + length + offset;
  return writer;
}

Status SafetensorsWriter::Write(size_t index, std::span<const std::byte> bytes) {
  Extent& extent = extents_[index];
  EW_CHECK(!extent.written && bytes.size() == extent.bytes);
  extent.written = true;
  return file_.WriteAt(extent.begin, bytes);
}

Status SafetensorsWriter::Finish() {
  for (size_t i = 0; i < extents_.size(); ++i) {
    if (extents_[i].written || extents_[i].bytes == 0) continue;
    return MakeError(Code::kInvalidArgument, "%s: tensor %s was not written", file_.path().c_str(),
                     Quote(tensors_[i].name).c_str());
  }
  return file_.Commit([this](const std::string& temporary) -> Status {
    EW_TRY(const SafetensorsFile file, SafetensorsFile::Open(temporary));
    if (file.tensors().all().size() == tensors_.size()) return Ok{};
    return MakeError(Code::kIo, "%s: holds %llu tensors after writing; %zu are expected",
                     temporary.c_str(), static_cast<U64>(file.tensors().all().size()),
                     tensors_.size());
  });
}

}  // namespace edgewise
