#include "formats/hf_folder.h"

#include <algorithm>
#include <filesystem>
#include <map>
#include <optional>
#include <system_error>
#include <unordered_map>

#include "base/file.h"
#include "base/strings.h"

namespace edgewise {
namespace {

namespace fs = std::filesystem;
using U64 = unsigned long long;

constexpr uint64_t kMaxConfigBytes = 64ull << 20;
constexpr const char* kSingleFile = "model.safetensors";
constexpr const char* kIndexFile = "model.safetensors.index.json";

struct ShardIndex {
  std::map<std::string, size_t> shards;                   // file name to its number of tensors
  std::unordered_map<std::string, std::string> shard_of;  // tensor to file name
  std::optional<uint64_t> total_size;
};

Result<Json> ReadJsonObject(const std::string& path) {
  EW_TRY(const auto text, ReadFile(path, kMaxConfigBytes));
  EW_TRY(auto json, ParseJson(text).In(path));
  if (!json.is_object()) {
    return MakeError(Code::kBadData, "%s: holds a JSON %s, not an object", path.c_str(),
                     json.TypeName());
  }
  return json;
}

// Returns null where the file is absent.
Result<Json> ReadOptionalJsonObject(const std::string& path) {
  if (!FileExists(path)) return Json();
  return ReadJsonObject(path);
}

bool IsPlainName(const std::string& name) {
  return !name.empty() && !name.starts_with('.') && name.ends_with(".safetensors") &&
         name.find_first_of(std::string_view("/\\\0", 3)) == std::string::npos;
}

// Returns the name of a pickle checkpoint in the folder, or nothing.
std::string FindPickle(const std::string& folder) {
  std::vector<std::string> found;
  std::error_code error;
  for (fs::directory_iterator it(folder, error), end; !error && it != end; it.increment(error)) {
    const std::string extension = it->path().extension().string();
    for (const char* pickle : {".bin", ".pt", ".pth", ".ckpt"}) {
      if (extension == pickle) found.push_back(it->path().filename().string());
    }
  }
  return found.empty() ? std::string() : *std::min_element(found.begin(), found.end());
}

Error NoWeights(const std::string& folder) {
  const std::string pickle = FindPickle(folder);
  if (!pickle.empty()) {
    return MakeError(
        Code::kUnsupported,
        "%s/%s: a pickle file can run code when loaded, so it is not read; convert the model to "
        "safetensors first",
        folder.c_str(), pickle.c_str());
  }
  return MakeError(Code::kNotFound, "%s: neither %s nor %s is in the folder", folder.c_str(),
                   kSingleFile, kIndexFile);
}

Result<ShardIndex> ParseIndex(const Json& json) {
  ShardIndex index;
  const Json* map = json.Find("weight_map");
  if (map == nullptr || map->AsObject() == nullptr) {
    return MakeError(Code::kBadData, "\"weight_map\" is missing or no object");
  }
  for (const auto& [tensor, file] : *map->AsObject()) {
    const std::string* name = file.AsString();
    if (name == nullptr || !IsPlainName(*name)) {
      return MakeError(Code::kBadData,
                       "tensor %s: its shard %s is not the plain name of a .safetensors file",
                       Quote(tensor).c_str(), Quote(file.Dump()).c_str());
    }
    ++index.shards[*name];
    index.shard_of.emplace(tensor, *name);
  }
  if (index.shards.empty()) return MakeError(Code::kBadData, "\"weight_map\" names no tensor");
  const Json* metadata = json.Find("metadata");
  const Json* total = metadata ? metadata->Find("total_size") : nullptr;
  if (total != nullptr) {
    index.total_size = total->AsUint();
    if (!index.total_size) {
      return MakeError(Code::kBadData, "\"total_size\" is %s, not a size",
                       Quote(total->Dump()).c_str());
    }
  }
  return index;
}

// Fails unless the shard holds exactly the tensors that the index puts there.
Status CheckShard(const SafetensorsFile& shard, const std::string& name, const ShardIndex& index) {
  for (const NamedTensor& tensor : shard.tensors().all()) {
    const auto found = index.shard_of.find(tensor.name);
    if (found == index.shard_of.end() || found->second != name) {
      return MakeError(Code::kBadData, "%s: holds the tensor %s, which %s does not put there",
                       name.c_str(), Quote(tensor.name).c_str(), kIndexFile);
    }
  }
  if (shard.tensors().all().size() == index.shards.at(name)) return Ok{};
  for (const auto& [tensor, file] : index.shard_of) {
    if (file == name && shard.tensors().Find(tensor) == nullptr) {
      return MakeError(Code::kBadData, "%s: lacks the tensor %s, which %s puts there", name.c_str(),
                       Quote(tensor).c_str(), kIndexFile);
    }
  }
  return Ok{};
}

Result<std::vector<SafetensorsFile>> OpenShards(const std::string& folder) {
  const std::string index_path = folder + "/" + kIndexFile;
  EW_TRY(const auto json, ReadJsonObject(index_path));
  EW_TRY(const auto index, ParseIndex(json).In(index_path));
  std::vector<SafetensorsFile> shards;
  uint64_t total = 0;
  for (const auto& [name, count] : index.shards) {
    EW_TRY(auto shard, SafetensorsFile::Open(folder + "/" + name));
    EW_TRY(CheckShard(shard, name, index).In(folder));
    for (const NamedTensor& tensor : shard.tensors().all()) total += tensor.view.bytes;
    shards.push_back(std::move(shard));
  }
  if (index.total_size && *index.total_size != total) {
    return MakeError(
        Code::kBadData, "%s: \"total_size\" is %llu, but the shards hold %llu bytes of tensors",
        index_path.c_str(), static_cast<U64>(*index.total_size), static_cast<U64>(total));
  }
  return shards;
}

Result<std::vector<SafetensorsFile>> OpenWeights(const std::string& folder) {
  if (FileExists(folder + "/" + kSingleFile)) {
    EW_TRY(auto file, SafetensorsFile::Open(folder + "/" + kSingleFile));
    std::vector<SafetensorsFile> files;
    files.push_back(std::move(file));
    return files;
  }
  if (FileExists(folder + "/" + kIndexFile)) return OpenShards(folder);
  return NoWeights(folder);
}

}  // namespace

Result<HfFolder> HfFolder::Open(const std::string& path) {
  if (!FileExists(path)) return MakeError(Code::kNotFound, "%s: no such folder", path.c_str());
  if (!IsDirectory(path)) {
    return MakeError(Code::kInvalidArgument,
                     "%s: not a folder; pass the model's folder, not one of its files",
                     path.c_str());
  }
  HfFolder folder;
  folder.path_ = path;
  EW_TRY(folder.config_, ReadJsonObject(path + "/config.json"));
  EW_TRY(folder.generation_config_, ReadOptionalJsonObject(path + "/generation_config.json"));
  EW_TRY(folder.tokenizer_config_, ReadOptionalJsonObject(path + "/tokenizer_config.json"));
  EW_TRY(folder.shards_, OpenWeights(path));
  for (const SafetensorsFile& shard : folder.shards_) {
    for (const NamedTensor& tensor : shard.tensors().all()) {
      if (!folder.tensors_.Add(tensor.name, tensor.view)) {
        return MakeError(Code::kBadData, "%s: the tensor %s is in two shards", path.c_str(),
                         Quote(tensor.name).c_str());
      }
    }
  }
  return folder;
}

}  // namespace edgewise
