// The path of a file to write, checked before the work.
#pragma once

#include <string>

#include "base/result.h"

namespace edgewise {

// Finds now what would otherwise fail after the work. Errors: kInvalidArgument (the output is the
// input, a directory, or exists without `overwrite`), kIo (its directory is missing or not
// writable).
Status CheckOutput(const std::string& in_path, const std::string& out_path, bool overwrite);

}  // namespace edgewise
