#include "pipeline/run_journal.h"

#include <fcntl.h>
#include <sys/file.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <vector>

#include "base/strings.h"

namespace edgewise {
namespace {

constexpr const char* kRunFile = "journal.json";
constexpr uint64_t kMaxRunBytes = 4u << 20;

Status CheckSameRun(const std::string& folder, const Json& found, const Json& run) {
  for (const auto& [key, value] : *run.AsObject()) {
    const Json* before = found.Find(key);
    if (before && before->Dump() == value.Dump()) continue;
    return MakeError(Code::kInvalidArgument,
                     "%s: is of a run with another %s, so this one cannot go on with it; undo the "
                     "change, or pass --force without --resume to begin anew",
                     folder.c_str(), key.c_str());
  }
  return Ok{};
}

// True for the temporaries of AtomicFile, "NAME.PID-N.part".
bool IsTemporary(const std::string& name) {
  const size_t dash = name.rfind('-');
  return name.ends_with(".part") && dash != name.npos && dash + 1 < name.size() - 5 &&
         name.find_first_not_of("0123456789", dash + 1) == name.size() - 5;
}

// Removes what a killed process could not.
void RemoveTemporaries(const std::string& folder) {
  std::error_code ignored;
  std::vector<std::filesystem::path> found;
  for (const auto& entry : std::filesystem::directory_iterator(folder, ignored)) {
    if (IsTemporary(entry.path().filename().string())) found.push_back(entry.path());
  }
  for (const auto& path : found) std::filesystem::remove(path, ignored);
}

}  // namespace

std::string JournalFolder(const std::string& out_path) { return out_path + ".journal"; }

Result<RunJournal> RunJournal::Open(const std::string& out_path, const Json& run,
                                    const Options& options) {
  RunJournal journal;
  const std::string folder = JournalFolder(out_path), run_path = folder + "/" + kRunFile;
  if (FileExists(folder) && !options.resume && !options.replace) {
    return MakeError(Code::kInvalidArgument,
                     "%s: an earlier run stopped here; pass --resume to go on with it, or --force "
                     "to begin anew",
                     folder.c_str());
  }
  std::error_code error;
  std::filesystem::create_directory(folder, error);
  if (error) {
    return MakeError(Code::kIo, "%s: cannot create: %s", folder.c_str(), error.message().c_str());
  }
  journal.lock_ = FileDescriptor(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (journal.lock_.get() < 0 || ::flock(journal.lock_.get(), LOCK_EX | LOCK_NB) != 0) {
    return MakeError(errno == EWOULDBLOCK ? Code::kInvalidArgument : Code::kIo,
                     "%s: cannot lock: %s", folder.c_str(),
                     errno == EWOULDBLOCK ? "another process works on it" : std::strerror(errno));
  }
  journal.folder_ = folder;
  if (FileExists(run_path) && options.resume) {
    EW_TRY(const std::string text, ReadFile(run_path, kMaxRunBytes));
    EW_TRY(const Json found, ParseJson(text).In(run_path));
    EW_TRY(CheckSameRun(folder, found, run));
    RemoveTemporaries(folder);
    journal.resumed_ = true;
    return journal;
  }
  for (const auto& entry : std::filesystem::directory_iterator(folder, error)) {
    std::filesystem::remove_all(entry.path(), error);
  }
  EW_TRY(AtomicFile file, AtomicFile::Create(run_path, true));
  EW_TRY(file.Write(run.Dump(2) + "\n"));
  EW_TRY(file.Commit());
  return journal;
}

void RunJournal::Remove() {
  std::error_code ignored;
  // Results before the small files that tell what they are, and the run's name last: wherever this
  // stops, what is left can be resumed.
  const auto remove = [&](auto what) {
    for (const auto& entry : std::filesystem::directory_iterator(folder_, ignored)) {
      if (what(entry.path())) std::filesystem::remove_all(entry.path(), ignored);
    }
  };
  remove([](const auto& path) { return path.extension() != ".json"; });
  remove([](const auto& path) {
    return path.filename() != kRunFile && path.filename() != kFinishingFile;
  });
  remove([](const auto& path) { return path.filename() != kRunFile; });
  std::filesystem::remove_all(folder_, ignored);
}

void RunJournal::RemoveIfEmpty() {
  std::error_code ignored;
  RemoveTemporaries(folder_);
  for (const auto& entry : std::filesystem::directory_iterator(folder_, ignored)) {
    if (entry.path().filename() == kRunFile) continue;
    if (!std::filesystem::is_empty(entry.path(), ignored)) return;
  }
  Remove();
}

}  // namespace edgewise
