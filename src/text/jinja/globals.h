// The functions that every template may call: range, dict, namespace, raise_exception,
// strftime_now.
#pragma once

#include "text/jinja/runtime.h"

namespace edgewise::jinja {

// Adds them to the outermost scope.
Status AddGlobals(Runtime& runtime, Scope* scope);

}  // namespace edgewise::jinja
