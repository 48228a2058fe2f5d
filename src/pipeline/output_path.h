// The path of a file to write, checked before the work; and small files written whole.
#pragma once

#include <string>
#include <string_view>

#include "base/result.h"

namespace edgewise {

// Finds now what would otherwise fail after the work. Errors: kInvalidArgument (the output is the
// input, a directory, or exists without `overwrite`), kIo (its directory is missing or not
// writable).
Status CheckOutput(const std::string& in_path, const std::string& out_path, bool overwrite);

// Writes a file whole or not at all, in place of one that is there. Errors: those of AtomicFile.
Status WriteTextFile(const std::string& path, std::string_view text);

}  // namespace edgewise
