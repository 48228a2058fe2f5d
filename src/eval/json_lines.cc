#include "eval/json_lines.h"

#include <algorithm>

#include "base/strings.h"

namespace edgewise {

Status EachJsonLine(std::string_view text,
                    FunctionRef<Status(const Json& value, uint64_t line)> use) {
  uint64_t number = 0;
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find('\n', at), text.size());
    const std::string_view line = Trim(text.substr(at, end - at));
    at = end + 1;
    ++number;
    if (line.empty()) continue;
    const std::string where = Format("line %llu", static_cast<unsigned long long>(number));
    EW_TRY(const Json value, ParseJson(line).In(where));
    EW_TRY(use(value, number).In(where));
  }
  return Ok{};
}

}  // namespace edgewise
