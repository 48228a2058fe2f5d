// The tests of the subset: what may follow `is`.
#pragma once

#include <string_view>

#include "text/jinja/runtime.h"

namespace edgewise::jinja {

struct TestEntry {
  std::string_view name;
  Result<bool> (*function)(Runtime& runtime, const Value& self, const Arguments& arguments);
  bool takes_argument;  // also without parentheses: `is divisibleby 3`
};

// Returns the test of this name; null when we have none.
const TestEntry* FindTest(std::string_view name);

}  // namespace edgewise::jinja
