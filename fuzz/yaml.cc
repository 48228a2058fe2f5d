// Fuzzes the YAML wrapper: any bytes give a value, each node with a place in the text, or an error.
#include "base/yaml.h"

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

namespace {

void CheckMarks(const edgewise::YamlDocument& document, const edgewise::Json& node) {
  const edgewise::YamlMark mark = document.MarkOf(node);
  if (mark.line < 1 || mark.column < 1) std::abort();
  if (const auto* array = node.AsArray()) {
    for (const auto& item : *array) CheckMarks(document, item);
  } else if (const auto* object = node.AsObject()) {
    for (const auto& [key, value] : *object) CheckMarks(document, value);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size > 4096) return 0;  // marks are found in linear time
  const auto document =
      edgewise::ParseYaml(std::string_view(reinterpret_cast<const char*>(data), size));
  if (!document) {
    if (document.error().message.empty()) std::abort();
    return 0;
  }
  CheckMarks(*document, document->root());
  return 0;
}
