// Fuzzes the readers of training sets and what looks at their text: whatever the bytes, the answer
// is examples whose texts can be searched, or an error.
#include "eval/training_set.h"

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "eval/data_audit.h"
#include "eval/invisible.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  edgewise::ThreadPool pool(1);
  for (const auto& set :
       {edgewise::ReadJsonLines(text), edgewise::ReadSeparatedTexts(text, "\n")}) {
    if (!set) {
      if (set.error().message.empty()) std::abort();
      continue;
    }
    if (set->empty() || set->size() > size) std::abort();
    const auto audit = edgewise::AuditData(*set, {}, nullptr, &pool);
    if (!audit || audit->examples != set->size()) std::abort();
  }
  for (const auto& hidden : edgewise::FindInvisible(text)) {
    if (hidden.offset >= size) std::abort();
  }
  return 0;
}
