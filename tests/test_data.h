// Where tests find files: the repository's own, and the optional folder of external models,
// vocabularies and golden outputs.
#pragma once

#include <doctest/doctest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>

namespace edgewise {

// A file of this repository, by its path from the root.
inline std::string SourcePath(const std::string& path) {
  return std::string(EDGEWISE_SOURCE_DIR) + "/" + path;
}

// A file of the external test data: $EDGEWISE_TEST_DATA, or the folder "shared" beside the
// repository. Empty when absent.
inline std::string ExternalPath(const std::string& path) {
  const char* folder = std::getenv("EDGEWISE_TEST_DATA");
  const std::string root = folder ? folder : std::string(EDGEWISE_SOURCE_DIR) + "/../shared";
  const std::string full = root + "/" + path;
  return std::filesystem::exists(full) ? full : std::string();
}

// The content of a file; empty when it cannot be read.
inline std::string ReadWhole(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

// A directory for one test's files, removed with its content at the end.
class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::string pattern =
        (std::filesystem::temp_directory_path() / "edgewise-test-XXXXXX").string();
    REQUIRE(::mkdtemp(pattern.data()) != nullptr);
    path_ = pattern;
  }
  ~TemporaryFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  std::string operator/(const std::string& name) const { return path_ + "/" + name; }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

}  // namespace edgewise

// Declares `name` as the path of an external test file, or ends the test with a message that says
// what is absent.
#define EW_EXTERNAL_OR_SKIP(name, path)                                  \
  const std::string name = ::edgewise::ExternalPath(path);               \
  if (name.empty()) {                                                    \
    MESSAGE("skipped: external test data " << (path) << " is not here"); \
    return;                                                              \
  }
