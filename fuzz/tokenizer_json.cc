// Fuzzes tokenizer.json: whatever the bytes, the answer is an error or a tokenizer that encodes and
// decodes any text without a fault.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>
#include <utility>

#include "text/tokenizer.h"
#include "text/tokenizer_files.h"

namespace {

void UseTokenizer(const edgewise::Tokenizer& tokenizer, std::string_view text) {
  for (const bool parse_special : {false, true}) {
    const auto ids = tokenizer.Encode(text, {.add_special = true, .parse_special = parse_special});
    if (!ids) {
      // Only a vocabulary without an unknown token may fail.
      if (tokenizer.vocab().unk) std::abort();
      continue;
    }
    if (!tokenizer.Decode(*ids, parse_special)) std::abort();
    edgewise::StreamDecoder stream(tokenizer, parse_special);
    for (const int32_t id : *ids) stream.Push(id);
    stream.Finish();
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view json(reinterpret_cast<const char*>(data), size);
  auto vocab = edgewise::ParseTokenizerJson(json);
  if (!vocab) {
    if (vocab.error().message.empty()) std::abort();
    return 0;
  }
  const auto tokenizer = edgewise::Tokenizer::Create(*std::move(vocab));
  if (!tokenizer) return 0;
  // The file is text like any other; its end comes from the fuzzer as much as its start.
  UseTokenizer(**tokenizer, json.substr(size - std::min<size_t>(size, 256)));
  return 0;
}
