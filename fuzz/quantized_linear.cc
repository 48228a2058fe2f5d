// Fuzzes the layouts of GPTQ, AWQ and bitsandbytes: a line of JSON with the config and the shape of
// the matrix "l.weight", then a safetensors file. Whatever the bytes, the answer is a matrix whose
// every value can be decoded, or an error.
#include "formats/quantized_linear.h"

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <span>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "formats/safetensors.h"

namespace {

constexpr uint64_t kMaxSize = 4096;

// A size of the matrix from the JSON, 1 to kMaxSize.
uint64_t Size(const edgewise::Json& json, const char* key) {
  const edgewise::Json* value = json.Find(key);
  const auto size = value ? value->AsUint() : std::nullopt;
  return size ? *size % kMaxSize + 1 : 1;
}

template <class T>
void RequireMessage(const edgewise::Result<T>& result) {
  if (!result && result.error().message.empty()) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const size_t line = text.find('\n');
  if (line == std::string_view::npos) return 0;
  const auto json = edgewise::ParseJson(text.substr(0, line));
  if (!json) return 0;
  const auto config = edgewise::ReadQuantizationConfig(*json);
  RequireMessage(config);
  const auto file =
      edgewise::SafetensorsFile::Parse(std::as_bytes(std::span(data, size).subspan(line + 1)));
  if (!config || !*config || !file) return 0;
  const edgewise::Shape shape{Size(*json, "rows"), Size(*json, "columns")};
  const auto matrix = edgewise::QuantizedMatrix::Find(**config, file->tensors(), "l.weight", shape);
  RequireMessage(matrix);
  if (!matrix || !*matrix) return 0;
  std::vector<float> values(shape.elements());
  (*matrix)->Decode(values.data());
  return 0;
}
