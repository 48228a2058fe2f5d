#include "pipeline/output_path.h"

#include <unistd.h>

#include <filesystem>

#include "base/file.h"
#include "base/strings.h"

namespace edgewise {
namespace {

std::string ParentOf(const std::string& path) {
  const std::string parent = std::filesystem::path(path).parent_path().string();
  return parent.empty() ? "." : parent;
}

}  // namespace

Status CheckOutput(const std::string& in_path, const std::string& out_path, bool overwrite) {
  std::error_code ignored;
  if (std::filesystem::equivalent(in_path, out_path, ignored)) {
    return MakeError(Code::kInvalidArgument, "%s: the output would replace the input",
                     out_path.c_str());
  }
  if (IsDirectory(out_path)) {
    return MakeError(Code::kInvalidArgument, "%s: is a directory; name the file to write",
                     out_path.c_str());
  }
  if (FileExists(out_path) && !overwrite) {
    return MakeError(Code::kInvalidArgument, "%s: exists already; pass --force to replace it",
                     out_path.c_str());
  }
  EW_TRY(CheckReplaceable(out_path));
  const std::string parent = ParentOf(out_path);
  if (!IsDirectory(parent)) {
    return MakeError(Code::kIo, "%s: the directory %s does not exist", out_path.c_str(),
                     parent.c_str());
  }
  if (::access(parent.c_str(), W_OK) != 0) {
    return MakeError(Code::kIo, "%s: no permission to write in %s", out_path.c_str(),
                     parent.c_str());
  }
  return Ok{};
}

Status WriteTextFile(const std::string& path, std::string_view text) {
  EW_TRY(AtomicFile file, AtomicFile::Create(path, true));
  EW_TRY(file.Write(text));
  return file.Commit();
}

}  // namespace edgewise
