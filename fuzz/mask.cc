// Fuzzes the reader of mask files: bits of any shape.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <span>

#include "compress/prune/mask_file.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto file = edgewise::MaskFile::Parse(std::as_bytes(std::span(data, size)));
  if (!file) {
    if (file.error().message.empty()) std::abort();
    return 0;
  }
  for (size_t i = 0; i < file->weights().size(); ++i) {
    const auto mask = file->Load(i);
    if (mask && mask->Density() > 1) std::abort();
    if (mask) (void)mask->Pattern();
  }
  return 0;
}
