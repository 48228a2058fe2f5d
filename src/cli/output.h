// What a command says: data on stdout, everything else on stderr.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "base/result.h"

namespace edgewise::cli {

inline constexpr const char* kVersion = EDGEWISE_VERSION;

// Writes to stdout and flushes. Errors: kIo (closed pipe, full disk).
Status Print(std::string_view text);

// Prints one object with "schema" ("edgewise.<verb>/1") and "version" in front.
Status PrintJson(const char* verb, const Json& members);

// True once an object was printed; there is to be one only.
bool JsonPrinted();

// Returns rows as left-aligned text columns (numbers right-aligned), first row the head.
std::string TextTable(const std::vector<std::vector<std::string>>& rows);

// The exit code of an error, from the table in docs/cli.md.
int ExitCode(Code code);
// What it tells; kUnsupported for codes that are in no row.
Code CodeOfExit(int exit_code);
const char* CodeName(Code code);

}  // namespace edgewise::cli
