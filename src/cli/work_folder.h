// A folder for the files that a verb makes on its way.
#pragma once

#include <string>
#include <utility>

#include "base/result.h"

namespace edgewise::cli {

// Move-only; removed at the end, unless it is the user's.
class WorkFolder {
 public:
  // `keep`: the user's folder, made if it is not there; empty: a temporary one, named after `verb`.
  // Errors: kIo.
  static Result<WorkFolder> Make(const std::string& verb, const std::string& keep);
  WorkFolder(WorkFolder&& other) noexcept
      : path_(std::move(other.path_)), remove_(std::exchange(other.remove_, false)) {}
  WorkFolder& operator=(WorkFolder&&) = delete;
  ~WorkFolder();
  const std::string& path() const { return path_; }

 private:
  WorkFolder() = default;
  std::string path_;
  bool remove_ = false;
};

}  // namespace edgewise::cli
