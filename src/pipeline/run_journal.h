// RunJournal: the folder "OUT.journal" in which a compression keeps what it has finished, so that
// it can go on after being killed at any moment. journal.json names the run; the other files are of
// its passes, each written atomically or as a TensorJournal.
#pragma once

#include <string>

#include "base/file.h"
#include "base/json.h"
#include "base/result.h"

namespace edgewise {

std::string JournalFolder(const std::string& out_path);
// What a run keeps in it from the moment that its outputs begin to appear under their names.
inline constexpr const char* kFinishingFile = "finishing.json";

// Move-only. Holds a lock on the folder, so that two runs cannot share it.
class RunJournal {
 public:
  struct Options {
    bool resume = false;   // go on with what is there, or begin
    bool replace = false;  // begin anew, whatever is there
  };
  // `run` (an object) names what decides the result. Errors: kInvalidArgument (a journal is there
  // and neither option is given; it is of another run: the member that differs is named; another
  // process holds it), kBadData (damaged), kIo.
  static Result<RunJournal> Open(const std::string& out_path, const Json& run,
                                 const Options& options);
  const std::string& folder() const { return folder_; }
  bool resumed() const { return resumed_; }
  // Removes the folder with all its files.
  void Remove();
  // Removes the folder if no pass has left a file in it.
  void RemoveIfEmpty();

 private:
  RunJournal() = default;
  std::string folder_;
  FileDescriptor lock_;  // of the folder
  bool resumed_ = false;
};

}  // namespace edgewise
