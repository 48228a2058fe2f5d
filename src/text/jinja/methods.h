// The methods of strings, lists and dicts that templates call.
#pragma once

#include <string_view>

#include "text/jinja/runtime.h"

namespace edgewise::jinja {

// Returns the method `name` of a value of this type; null when there is none.
Builtin FindMethod(const Value& self, std::string_view name);

}  // namespace edgewise::jinja
