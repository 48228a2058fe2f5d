// Fuzzes the reader of calibration files: sums and triangles of any shape and value.
#include "calibrate/calibration.h"

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <span>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using edgewise::CalibrationFile;
  const auto file = CalibrationFile::Parse(std::as_bytes(std::span(data, size)));
  if (!file) {
    if (file.error().message.empty()) std::abort();
    return 0;
  }
  for (const std::string& weight : file->weights()) {
    (void)file->Moments(weight);
    if (file->HasHessian(weight)) (void)file->Hessian(weight);
  }
  return 0;
}
