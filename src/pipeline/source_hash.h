// The identity of a model's files, for the provenance keys of what is made from it.
#pragma once

#include <atomic>
#include <functional>
#include <future>
#include <string>
#include <vector>

#include "base/progress.h"
#include "base/result.h"
#include "model/checkpoint.h"

namespace edgewise {

// SHA-256 of every file that an output is made from.
struct SourceHash {
  std::vector<std::string> files;  // "digest  name", as sha256sum prints them, sorted by name;
                                   // names without their folder
  std::string digest;  // of the only file, or of the lines above, each with its line end
};

// The paths of the files behind a checkpoint: weights, configuration, tokenizer.
Result<std::vector<std::string>> SourceFiles(const Checkpoint& checkpoint,
                                             const std::string& tokenizer_path);

inline constexpr size_t kHashChunkBytes = 8u << 20;  // of a file, that are in memory at once

// Returns the SHA-256 of each file in hexadecimals. Reads it once, in bounded memory. Errors: those
// of MappedFile::Open, kCancelled (`stopped`, which is asked every few megabytes, returned true).
Result<std::vector<std::string>> FileDigests(const std::vector<std::string>& paths,
                                             const std::function<bool()>& stopped);
// The hash of files that have these digests.
SourceHash Combine(const std::vector<std::string>& paths, const std::vector<std::string>& digests);
// Both. Errors: those of FileDigests.
Result<SourceHash> HashFiles(const std::vector<std::string>& paths,
                             const std::function<bool()>& stopped);

// A hash of the same length for a dry run, where nothing is read.
SourceHash PlaceholderHash(const std::vector<std::string>& paths);

// Hashes files beside other work, or after it where only one thread may work.
class SourceHashing {
 public:
  SourceHashing(const std::vector<std::string>& paths, int threads, const Progress* progress)
      : result_(std::async(
            threads > 1 ? std::launch::async : std::launch::deferred, [this, &paths, progress] {
              return HashFiles(paths, [&] { return stop_ || progress->Cancelled(); });
            })) {}
  ~SourceHashing() { stop_ = true; }  // the future's destructor waits
  Result<SourceHash> Finish() { return result_.get(); }

 private:
  std::atomic<bool> stop_ = false;
  std::future<Result<SourceHash>> result_;
};

}  // namespace edgewise
