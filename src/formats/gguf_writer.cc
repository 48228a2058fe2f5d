#include <algorithm>
#include <array>
#include <cstring>
#include <limits>
#include <type_traits>
#include <unordered_set>
#include <utility>

#include "base/bytes.h"
#include "base/strings.h"
#include "formats/gguf.h"
#include "formats/gguf_header.h"

namespace edgewise {
namespace {

using U64 = unsigned long long;

// llama.cpp stores a name in 64 bytes, its end mark included.
constexpr size_t kMaxWrittenNameBytes = 63;

// Appends fields in file order.
class HeaderBuilder {
 public:
  template <class T>
  void Number(T value) {
    static_assert(std::is_arithmetic_v<T>);
    char bytes[sizeof(T)];
    std::memcpy(bytes, &value, sizeof(T));
    text_.append(bytes, sizeof(T));
  }
  void Text(std::string_view text) {
    Number(uint64_t{text.size()});
    text_ += text;
  }
  void Value(const MetaValue& value) {
    std::visit([this](const auto& v) { Item(v); }, value);
  }
  void Pad(uint64_t alignment) { text_.resize(AlignUp(text_.size(), alignment)); }
  std::string Take() && { return std::move(text_); }

 private:
  void Item(const std::string& text) { Text(text); }
  void Item(bool value) { Number(static_cast<uint8_t>(value)); }
  void Item(const MetaArray& array) {
    Number(static_cast<uint32_t>(array.element));
    Number(uint64_t{array.size()});
    std::visit(
        [this](const auto& values) {
          for (const auto& value : values) Item(value);
        },
        array.values);
  }
  template <class T>
    requires std::is_arithmetic_v<T>
  void Item(T value) {
    Number(value);
  }

  std::string text_;
};

struct Layout {
  std::string header;             // up to the data section, padding included
  std::vector<uint64_t> sizes;    // bytes of each tensor
  std::vector<uint64_t> offsets;  // absolute
  uint64_t total_bytes = 0;
};

// True when the array's values are of the type that it names.
bool ElementMatches(const MetaArray& array) {
  constexpr std::array<MetaType, 11> kTypes = {MetaType::kU8,  MetaType::kI8,     MetaType::kU16,
                                               MetaType::kI16, MetaType::kU32,    MetaType::kI32,
                                               MetaType::kF32, MetaType::kString, MetaType::kU64,
                                               MetaType::kI64, MetaType::kF64};
  const MetaType stored = kTypes[array.values.index()];
  return array.element == stored || (array.element == MetaType::kBool && stored == MetaType::kU8);
}

Status CheckMetadata(const Metadata& metadata) {
  for (const auto& [key, value] : metadata.all()) {
    const auto* array = std::get_if<MetaArray>(&value);
    if (array && !ElementMatches(*array)) {
      return MakeError(Code::kInvalidArgument,
                       "metadata key %s: the array does not hold the %s values it names",
                       Quote(key).c_str(), MetaTypeName(array->element));
    }
  }
  return Ok{};
}

Status CheckDeclarations(std::span<const GgufTensorDecl> tensors) {
  std::unordered_set<std::string_view> names;
  for (const GgufTensorDecl& tensor : tensors) {
    const std::string name = Quote(tensor.name);
    if (tensor.name.empty() || tensor.name.size() > kMaxWrittenNameBytes) {
      return MakeError(Code::kInvalidArgument,
                       "the tensor name %s has %zu bytes; 1 to %zu are possible", name.c_str(),
                       tensor.name.size(), kMaxWrittenNameBytes);
    }
    if (!names.insert(tensor.name).second) {
      return MakeError(Code::kInvalidArgument, "two tensors are named %s", name.c_str());
    }
    if (tensor.shape.elements() == 0) {
      return MakeError(Code::kInvalidArgument, "tensor %s has the empty shape %s", name.c_str(),
                       tensor.shape.ToString().c_str());
    }
  }
  return Ok{};
}

// Sets sizes, and offsets from the start of the data section, each tensor padded to the alignment.
Status PlaceTensors(std::span<const GgufTensorDecl> tensors, uint64_t alignment, Layout* layout) {
  uint64_t end = 0;
  for (const GgufTensorDecl& tensor : tensors) {
    auto bytes = TensorBytes(tensor.dtype, tensor.shape, tensor.layout);
    if (!bytes) {
      return MakeError(Code::kInvalidArgument, "tensor %s: %s", Quote(tensor.name).c_str(),
                       bytes.error().message.c_str());
    }
    layout->sizes.push_back(*bytes);
    layout->offsets.push_back(end);
    uint64_t next = 0;
    // Half the range is kept free for the header and the rounding.
    if (AddOverflows(end, *bytes, &next) || next > std::numeric_limits<uint64_t>::max() / 2) {
      return MakeError(Code::kInvalidArgument, "tensor %s: the file would be too large",
                       Quote(tensor.name).c_str());
    }
    end = AlignUp(next, alignment);
  }
  layout->total_bytes = end;
  return Ok{};
}

std::string BuildHeader(const Metadata& metadata, std::span<const GgufTensorDecl> tensors,
                        std::span<const uint64_t> offsets, uint64_t alignment) {
  HeaderBuilder builder;
  for (const char c : std::string_view("GGUF")) builder.Number(c);
  builder.Number(kGgufVersion);
  builder.Number(uint64_t{tensors.size()});
  builder.Number(uint64_t{metadata.all().size()});
  for (const auto& [key, value] : metadata.all()) {
    builder.Text(key);
    builder.Number(static_cast<uint32_t>(TypeOf(value)));
    builder.Value(value);
  }
  for (size_t i = 0; i < tensors.size(); ++i) {
    const Shape& shape = tensors[i].shape;
    builder.Text(tensors[i].name);
    builder.Number(static_cast<uint32_t>(std::max(shape.rank(), 1)));
    if (shape.rank() == 0) builder.Number(uint64_t{1});  // GGUF has no rank 0
    for (int d = shape.rank() - 1; d >= 0; --d) builder.Number(shape[d]);
    const uint32_t tag = tensors[i].layout == TensorLayout::kPacked ? kGgufPackedTag : 0;
    builder.Number(tag | static_cast<uint32_t>(Info(tensors[i].dtype).gguf_id));
    builder.Number(offsets[i]);
  }
  builder.Pad(alignment);
  return std::move(builder).Take();
}

Result<Layout> MakeLayout(const Metadata& metadata, std::span<const GgufTensorDecl> tensors) {
  EW_TRY(CheckMetadata(metadata));
  EW_TRY(CheckDeclarations(tensors));
  auto alignment = GgufAlignment(metadata);
  if (!alignment) return Error{Code::kInvalidArgument, std::move(alignment).error().message};
  Layout layout;
  EW_TRY(PlaceTensors(tensors, *alignment, &layout));
  layout.header = BuildHeader(metadata, tensors, layout.offsets, *alignment);
  for (uint64_t& offset : layout.offsets) offset += layout.header.size();
  layout.total_bytes += layout.header.size();

  // What our own reader refuses must be found before hours of work go into the file.
  auto parsed = ParseGgufHeader(std::as_bytes(std::span(layout.header)), layout.total_bytes);
  if (!parsed) {
    return Error{Code::kInvalidArgument,
                 "the file to write would not be readable: " + parsed.error().message};
  }
  return layout;
}

// Fails unless the file at `path` reads back as declared.
Status CheckWritten(const std::string& path, std::span<const GgufTensorDecl> tensors,
                    std::span<const uint64_t> offsets, uint64_t total_bytes) {
  EW_TRY(const auto file, GgufFile::Open(path));
  if (file.file_bytes() != total_bytes) {
    return MakeError(Code::kIo, "%s: %llu bytes, not %llu", path.c_str(),
                     static_cast<U64>(file.file_bytes()), static_cast<U64>(total_bytes));
  }
  const auto found = file.tensors().all();
  bool same = found.size() == tensors.size();
  for (size_t i = 0; same && i < tensors.size(); ++i) {
    const TensorView& view = found[i].view;
    same = found[i].name == tensors[i].name && view.dtype == tensors[i].dtype &&
           view.layout == tensors[i].layout &&
           view.shape == (tensors[i].shape.rank() == 0 ? Shape{1} : tensors[i].shape) &&
           view.data == file.map()->bytes().data() + offsets[i];
  }
  if (!same) return MakeError(Code::kIo, "%s: its tensors are not the declared ones", path.c_str());
  return Ok{};
}

}  // namespace

Result<uint64_t> GgufFileBytes(const Metadata& metadata, std::span<const GgufTensorDecl> tensors) {
  EW_TRY(const auto layout, MakeLayout(metadata, tensors));
  return layout.total_bytes;
}

Result<uint64_t> GgufHeaderBytes(const Metadata& metadata,
                                 std::span<const GgufTensorDecl> tensors) {
  EW_TRY(const auto layout, MakeLayout(metadata, tensors));
  return layout.header.size();
}

Result<std::string> BuildGgufHeader(const Metadata& metadata,
                                    std::span<const GgufTensorDecl> tensors) {
  EW_TRY(auto layout, MakeLayout(metadata, tensors));
  return std::move(layout.header);
}

Result<GgufWriter> GgufWriter::Create(const std::string& path, bool overwrite,
                                      const Metadata& metadata,
                                      std::vector<GgufTensorDecl> tensors) {
  EW_TRY(auto layout, MakeLayout(metadata, tensors).In(path));
  EW_TRY(auto file, AtomicFile::Create(path, overwrite));
  EW_TRY(file.Reserve(layout.total_bytes));
  EW_TRY(file.Write(layout.header));
  GgufWriter writer(std::move(file));
  writer.tensors_ = std::move(tensors);
  writer.sizes_ = std::move(layout.sizes);
  writer.offsets_ = std::move(layout.offsets);
  writer.total_bytes_ = layout.total_bytes;
  writer.whole_.resize(writer.tensors_.size());
  return writer;
}

Status GgufWriter::Begin(size_t tensor) {
  if (tensor >= tensors_.size() || whole_[tensor] || written_ > 0) {
    return MakeError(
        Code::kInvalidArgument,
        "%s: tensor number %zu cannot begin now: it is written or another is incomplete",
        file_.path().c_str(), tensor);
  }
  current_ = tensor;
  return Ok{};
}

Status GgufWriter::Write(std::span<const std::byte> bytes) {
  if (bytes.empty()) return Ok{};
  if (current_ == tensors_.size()) {
    return MakeError(Code::kInvalidArgument, "%s: %zu bytes more after the last tensor",
                     file_.path().c_str(), bytes.size());
  }
  const uint64_t left = sizes_[current_] - written_;
  if (bytes.size() > left) {
    return MakeError(Code::kInvalidArgument,
                     "%s: %zu bytes for tensor %s, which lacks only %llu of %llu",
                     file_.path().c_str(), bytes.size(), Quote(tensors_[current_].name).c_str(),
                     static_cast<U64>(left), static_cast<U64>(sizes_[current_]));
  }
  EW_TRY(file_.WriteAt(offsets_[current_] + written_, bytes));
  written_ += bytes.size();
  if (written_ < sizes_[current_]) return Ok{};
  const uint64_t end = offsets_[current_] + written_;
  const uint64_t next = current_ + 1 < offsets_.size() ? offsets_[current_ + 1] : total_bytes_;
  whole_[current_] = true;
  written_ = 0;
  const auto unwritten = std::find(whole_.begin(), whole_.end(), false);
  current_ = static_cast<size_t>(unwritten - whole_.begin());
  const std::string padding(next - end, '\0');
  return file_.WriteAt(end, std::as_bytes(std::span(padding)));
}

Status GgufWriter::ReplaceMetadata(const Metadata& metadata) {
  EW_TRY(const auto layout, MakeLayout(metadata, tensors_).In(file_.path()));
  if (layout.offsets != offsets_) {
    return MakeError(Code::kInvalidArgument,
                     "%s: the new metadata takes a header of %zu bytes, which does not fit",
                     file_.path().c_str(), layout.header.size());
  }
  return file_.WriteAt(0, std::as_bytes(std::span(layout.header)));
}

Status GgufWriter::Finish() {
  if (current_ < tensors_.size()) {
    return MakeError(Code::kInvalidArgument,
                     "%s: tensor %s is incomplete (%llu of %llu bytes written)",
                     file_.path().c_str(), Quote(tensors_[current_].name).c_str(),
                     static_cast<U64>(written_), static_cast<U64>(sizes_[current_]));
  }
  return file_.Commit([this](const std::string& temporary) {
    return CheckWritten(temporary, tensors_, offsets_, total_bytes_);
  });
}

}  // namespace edgewise
