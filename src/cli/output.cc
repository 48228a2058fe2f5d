#include "cli/output.h"

#include <signal.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>

#include "base/strings.h"

namespace edgewise::cli {
namespace {

struct CodeRow {
  Code code;
  int exit_code;
  const char* name;
};
constexpr CodeRow kCodes[] = {
    {Code::kInvalidArgument, 2, "invalid_argument"},
    {Code::kNotFound, 3, "not_found"},
    {Code::kBadData, 4, "bad_data"},
    {Code::kOutOfMemory, 5, "out_of_memory"},
    {Code::kIo, 6, "io"},
    {Code::kUnsupported, 9, "unsupported"},
    {Code::kCancelled, 130, "cancelled"},
};

bool json_printed = false;

// Columns a text takes on a terminal; counts UTF-8 characters.
size_t Width(std::string_view text) {
  return static_cast<size_t>(
      std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xC0) != 0x80; }));
}

bool LooksNumeric(std::string_view text) {
  return text.empty() || text == "-" || (text[0] >= '0' && text[0] <= '9') ||
         ((text[0] == '-' || text[0] == '+') && text.size() > 1);
}

}  // namespace

Status Print(std::string_view text) {
  if (std::fwrite(text.data(), 1, text.size(), stdout) != text.size() || std::fflush(stdout) != 0) {
    return MakeError(Code::kIo, "cannot write to standard output: %s", std::strerror(errno));
  }
  return Ok{};
}

bool JsonPrinted() { return json_printed; }

Status PrintJson(const char* verb, const Json& members) {
  json_printed = true;
  Json object;
  object.Set("schema", Format("edgewise.%s/1", verb)).Set("version", kVersion);
  if (const JsonObject* pairs = members.AsObject()) {
    for (const auto& [key, value] : *pairs) object.Set(key, value);
  }
  return Print(object.Dump() + "\n");
}

std::string TextTable(const std::vector<std::vector<std::string>>& rows) {
  std::vector<size_t> widths;
  std::vector<bool> numeric;
  for (size_t r = 0; r < rows.size(); ++r) {
    widths.resize(std::max(widths.size(), rows[r].size()));
    numeric.resize(widths.size(), true);
    for (size_t c = 0; c < rows[r].size(); ++c) {
      widths[c] = std::max(widths[c], Width(rows[r][c]));
      if (r > 0 && !LooksNumeric(rows[r][c])) numeric[c] = false;
    }
  }
  std::string text;
  for (const auto& row : rows) {
    std::string line;
    for (size_t c = 0; c < row.size(); ++c) {
      const std::string padding(widths[c] - Width(row[c]), ' ');
      if (c > 0) line += "  ";
      line += numeric[c] ? padding + row[c] : row[c] + padding;
    }
    while (!line.empty() && line.back() == ' ') line.pop_back();
    text += line + "\n";
  }
  return text;
}

int ExitCode(Code code) {
  for (const CodeRow& row : kCodes) {
    if (row.code == code) return row.exit_code;
  }
  return 1;
}

Code CodeOfExit(int exit_code) {
  if (exit_code == 128 + SIGTERM) return Code::kCancelled;
  for (const CodeRow& row : kCodes) {
    if (row.exit_code == exit_code) return row.code;
  }
  return Code::kUnsupported;
}

const char* CodeName(Code code) {
  for (const CodeRow& row : kCodes) {
    if (row.code == code) return row.name;
  }
  return "internal";
}

}  // namespace edgewise::cli
