// HfOutput: a Hugging Face folder in the making, around its tensors: config.json, the tokenizer's
// files, and what of a folder that is there already has to go.
#pragma once

#include <string>

#include "base/json.h"
#include "base/result.h"
#include "quant/dtype.h"

namespace edgewise {

// Finds now what would otherwise fail after the work. Errors: kInvalidArgument (the output is the
// input, a file, or a folder that is not empty without `overwrite`).
Status CheckFolderOutput(const std::string& in_path, const std::string& out_path, bool overwrite);

// Makes the folder, or makes sure that an old model in it does not look whole in the meantime.
// Returns true where it was made. Errors: kIo.
Result<bool> PrepareFolder(const std::string& path);

// Removes a folder that this run made, where nothing is in it.
void RemoveIfEmpty(const std::string& path);

// The name of a float format in a safetensors file.
const char* SafetensorsName(DType type);

// True where a folder has the files of a tokenizer.
bool HoldsTokenizer(const std::string& folder);
// Copies what a folder holds beside config.json and the weights. Errors: those of ReadFile and
// AtomicFile.
Status CopyTokenizerFiles(const std::string& from, const std::string& to, bool overwrite);

// Writes config.json, the last file, and opens the whole. Errors: those of AtomicFile and
// Checkpoint::Open.
Status FinishFolder(const std::string& path, const Json& config, bool overwrite);

}  // namespace edgewise
