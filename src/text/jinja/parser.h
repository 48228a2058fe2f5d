// Turns a template's source into its syntax tree.
#pragma once

#include <string_view>

#include "base/result.h"
#include "text/jinja/ast.h"
#include "text/jinja/limits.h"

namespace edgewise::jinja {

// Errors: kBadData (syntax, with line and column; too large; too deep), kUnsupported (a statement,
// filter or test that we lack).
Result<Block> ParseTemplate(std::string_view source, const JinjaLimits& limits);

}  // namespace edgewise::jinja
