// Fuzzes the safetensors reader: whatever the bytes, the answer is a file whose every view can be
// read, or an error.
#include "formats/safetensors.h"

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <span>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto file = edgewise::SafetensorsFile::Parse(std::as_bytes(std::span(data, size)));
  if (!file) {
    if (file.error().message.empty()) std::abort();
    return 0;
  }
  size_t covered = 0;
  for (const auto& tensor : file->tensors().all()) {
    covered += tensor.view.bytes;
    if (tensor.view.bytes == 0) continue;
    std::vector<float> row(tensor.view.shape.columns());
    tensor.view.DecodeRow(0, row.data());
    tensor.view.DecodeRow(tensor.view.shape.rows() - 1, row.data());
  }
  if (covered > size) std::abort();
  return 0;
}
