// Fuzzes the GGUF reader: whatever the bytes, the answer is a file whose every view can be read, or
// an error.
#include "formats/gguf.h"

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <span>
#include <vector>

namespace {

// Decodes the first and the last row; wide rows are left out, because time and not safety is what
// they cost.
void ReadTensor(const edgewise::TensorView& view) {
  constexpr uint64_t kWidest = 1 << 16;
  if (view.shape.columns() > kWidest) return;
  std::vector<float> row(view.shape.columns());
  view.DecodeRow(0, row.data());
  view.DecodeRow(view.shape.rows() - 1, row.data());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto file = edgewise::GgufFile::Parse(std::as_bytes(std::span(data, size)));
  if (!file) {
    if (file.error().message.empty()) std::abort();
    return 0;
  }
  for (const auto& tensor : file->tensors().all()) {
    if (file->tensors().Find(tensor.name) == nullptr) std::abort();
    ReadTensor(tensor.view);
  }
  for (const auto& [key, value] : file->metadata().all()) {
    if (file->metadata().Find(key) == nullptr || edgewise::Describe(value).empty()) std::abort();
  }
  return 0;
}
