#include "cli/work_folder.h"

#include <cstdlib>
#include <filesystem>

#include "base/strings.h"

namespace edgewise::cli {

Result<WorkFolder> WorkFolder::Make(const std::string& verb, const std::string& keep) {
  WorkFolder folder;
  std::error_code error;
  if (!keep.empty()) {
    std::filesystem::create_directories(keep, error);
    if (error)
      return MakeError(Code::kIo, "%s: cannot create the folder: %s", keep.c_str(),
                       error.message().c_str());
    folder.path_ = keep;
    return folder;
  }
  std::string pattern =
      (std::filesystem::temp_directory_path(error) / ("edgewise-" + verb + "-XXXXXX")).string();
  if (error || ::mkdtemp(pattern.data()) == nullptr) {
    return MakeError(Code::kIo,
                     "%s: cannot create a temporary folder; set TMPDIR to one that can "
                     "be written",
                     pattern.c_str());
  }
  folder.path_ = pattern;
  folder.remove_ = true;
  return folder;
}

WorkFolder::~WorkFolder() {
  std::error_code ignored;
  if (remove_) std::filesystem::remove_all(path_, ignored);
}

}  // namespace edgewise::cli
