#include "pipeline/hf_output.h"

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "base/file.h"
#include "base/strings.h"
#include "model/checkpoint.h"

namespace edgewise {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kMaxCopiedBytes = 256ull << 20;

constexpr const char* kCopiedFiles[] = {
    "generation_config.json",  "tokenizer.model",   "tokenizer.json", "tokenizer_config.json",
    "special_tokens_map.json", "added_tokens.json", "vocab.json",     "merges.txt",
    "chat_template.jinja",     "chat_template.json"};

Status WriteText(const std::string& path, std::string_view text, bool overwrite) {
  EW_TRY(AtomicFile file, AtomicFile::Create(path, overwrite));
  EW_TRY(file.Write(text));
  return file.Commit();
}

const char* SafetensorsName(DType type) {
  switch (type) {
    case DType::kF64:
      return "F64";
    case DType::kF16:
      return "F16";
    case DType::kBF16:
      return "BF16";
    default:
      return "F32";
  }
}

}  // namespace

Status CheckFolderOutput(const std::string& in_path, const std::string& out_path, bool overwrite) {
  std::error_code error;
  if (fs::equivalent(in_path, out_path, error)) {
    return MakeError(Code::kInvalidArgument, "%s: the output would replace the input",
                     out_path.c_str());
  }
  if (!FileExists(out_path)) return Ok{};
  if (!IsDirectory(out_path)) {
    return MakeError(Code::kInvalidArgument, "%s: is a file; name the folder to write",
                     out_path.c_str());
  }
  if (!overwrite && !fs::is_empty(out_path, error)) {
    return MakeError(Code::kInvalidArgument,
                     "%s: the folder is not empty; pass --force to replace its model",
                     out_path.c_str());
  }
  return Ok{};
}

Status WriteInFolder(const std::string& path, FunctionRef<Status()> write) {
  std::error_code error;
  const bool made = fs::create_directory(path, error);
  if (!error) fs::remove(path + "/config.json", error);
  if (!error) fs::remove(path + "/model.safetensors.index.json", error);
  if (error) {
    return MakeError(Code::kIo, "%s: cannot be written: %s", path.c_str(), error.message().c_str());
  }
  Status written = write();
  if (!written && made) fs::remove(path, error);  // only when it is empty
  return written;
}

SafetensorsDecl DeclareTensor(const NeededTensor& tensor, DType type) {
  std::vector<uint64_t> sizes;
  for (int i = 0; i < tensor.shape.rank(); ++i) sizes.push_back(tensor.shape[i]);
  return {tensor.hf_name, SafetensorsName(type), std::move(sizes)};
}

bool HoldsTokenizer(const std::string& folder) {
  const auto files = {"tokenizer.model", "tokenizer.json", "vocab.json"};
  return std::any_of(files.begin(), files.end(),
                     [&](const char* name) { return FileExists(folder + "/" + name); });
}

Status CopyTokenizerFiles(const std::string& from, const std::string& to, bool overwrite) {
  for (const char* name : kCopiedFiles) {
    const std::string source = from + "/" + name;
    if (!FileExists(source)) continue;
    EW_TRY(const std::string text, ReadFile(source, kMaxCopiedBytes));
    EW_TRY(WriteText(to + "/" + name, text, overwrite));
  }
  return Ok{};
}

Status FinishFolder(const std::string& path, const Json& config, bool overwrite) {
  EW_TRY(WriteText(path + "/config.json", config.Dump(2) + "\n", overwrite));
  EW_TRY(const Checkpoint written, Checkpoint::Open(path).In("the written model"));
  return Ok{};
}

}  // namespace edgewise
