// Lines of JSON, one value each.
#pragma once

#include <cstdint>
#include <string_view>

#include "base/json.h"
#include "base/result.h"
#include "base/thread_pool.h"

namespace edgewise {

// Hands each line that is not blank to `use`, with its number, from 1. Errors: those of ParseJson
// and `use`, behind "line N".
Status EachJsonLine(std::string_view text,
                    FunctionRef<Status(const Json& value, uint64_t line)> use);

}  // namespace edgewise
