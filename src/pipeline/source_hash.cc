#include "pipeline/source_hash.h"

#include <algorithm>

#include "base/file.h"
#include "base/sha256.h"
#include "base/strings.h"
#include "formats/hf_folder.h"

namespace edgewise {
namespace {

// What a folder may hold beside its weights that decides the output.
constexpr const char* kFolderFiles[] = {
    "config.json",         "generation_config.json", "tokenizer.model",
    "tokenizer.json",      "tokenizer_config.json",  "added_tokens.json",
    "chat_template.jinja", "chat_template.json",     "model.safetensors.index.json"};

void AddFolderFiles(const std::string& folder, std::vector<std::string>* paths) {
  for (const char* name : kFolderFiles) {
    const std::string path = folder + "/" + name;
    if (FileExists(path)) paths->push_back(path);
  }
}

std::string_view NameOf(std::string_view path) {
  const size_t slash = path.rfind('/');
  return slash == std::string_view::npos ? path : path.substr(slash + 1);
}

}  // namespace

SourceHash Combine(const std::vector<std::string>& paths, const std::vector<std::string>& digests) {
  SourceHash hash;
  std::string listing;
  for (size_t i = 0; i < paths.size(); ++i) {
    hash.files.push_back(digests[i] + "  " + std::string(NameOf(paths[i])));
  }
  std::sort(hash.files.begin(), hash.files.end(), [](const std::string& a, const std::string& b) {
    return a.substr(66) + a < b.substr(66) + b;
  });
  for (const std::string& line : hash.files) listing += line + "\n";
  hash.digest = digests.size() == 1
                    ? digests[0]
                    : Sha256Hex(std::as_bytes(std::span(listing.data(), listing.size())));
  return hash;
}

Result<std::vector<std::string>> SourceFiles(const Checkpoint& checkpoint,
                                             const std::string& tokenizer_path) {
  std::vector<std::string> paths;
  const std::string& path = checkpoint.path();
  if (checkpoint.kind() == CheckpointKind::kHfFolder) {
    EW_TRY(const HfFolder folder, HfFolder::Open(path));
    for (const SafetensorsFile& shard : folder.shards()) paths.push_back(shard.map()->path());
    AddFolderFiles(path, &paths);
  } else {
    paths.push_back(path);
  }
  if (!tokenizer_path.empty()) {
    if (IsDirectory(tokenizer_path)) {
      AddFolderFiles(tokenizer_path, &paths);
    } else {
      paths.push_back(tokenizer_path);
    }
  } else if (checkpoint.kind() == CheckpointKind::kLlama2c) {
    const std::string folder = path.substr(0, path.size() - NameOf(path).size());
    for (const std::string& name :
         {std::string("tokenizer.bin"), Format("tok%u.bin", checkpoint.spec().vocab_size)}) {
      if (!FileExists(folder + name)) continue;
      paths.push_back(folder + name);
      break;
    }
  }
  std::sort(paths.begin(), paths.end());
  paths.erase(std::unique(paths.begin(), paths.end()), paths.end());
  return paths;
}

Result<std::vector<std::string>> FileDigests(const std::vector<std::string>& paths,
                                             const std::function<bool()>& stopped) {
  std::vector<MappedFile> files;
  for (const std::string& path : paths) {
    EW_TRY(MappedFile file, MappedFile::Open(path));
    files.push_back(std::move(file));
  }
  std::vector<std::string> digests;
  for (const MappedFile& file : files) {
    Sha256 sha;
    for (size_t at = 0; at < file.bytes().size(); at += kHashChunkBytes) {
      const auto part =
          file.bytes().subspan(at, std::min(kHashChunkBytes, file.bytes().size() - at));
      sha.Update(part);
      file.DropPages(part);
      if (stopped())
        return MakeError(Code::kCancelled, "stopped while reading %s", file.path().c_str());
    }
    digests.push_back(ToHex(sha.Finish()));
  }
  return digests;
}

Result<SourceHash> HashFiles(const std::vector<std::string>& paths,
                             const std::function<bool()>& stopped) {
  EW_TRY(const std::vector<std::string> digests, FileDigests(paths, stopped));
  return Combine(paths, digests);
}

SourceHash PlaceholderHash(const std::vector<std::string>& paths) {
  return Combine(paths, std::vector<std::string>(paths.size(), std::string(64, '0')));
}

}  // namespace edgewise
