// HfOutput: a Hugging Face folder in the making, around its tensors: config.json, the tokenizer's
// files, and what of a folder that is there already has to go.
#pragma once

#include <string>

#include "base/json.h"
#include "base/result.h"
#include "base/thread_pool.h"
#include "formats/safetensors_writer.h"
#include "model/arch/tensors.h"
#include "quant/dtype.h"

namespace edgewise {

// Finds now what would otherwise fail after the work. Errors: kInvalidArgument (the output is the
// input, a file, or a folder that is not empty without `overwrite`).
Status CheckFolderOutput(const std::string& in_path, const std::string& out_path, bool overwrite);

// Makes the folder, or makes sure that an old model in it does not look whole in the meantime, and
// calls `write`; where that fails, a folder that was made and is empty goes. Errors: kIo, those of
// `write`.
Status WriteInFolder(const std::string& path, FunctionRef<Status()> write);

// A tensor under its Hugging Face name in F64, F16 or BF16, and in F32 where `type` is none of
// them.
SafetensorsDecl DeclareTensor(const NeededTensor& tensor, DType type);

// True where a folder has the files of a tokenizer.
bool HoldsTokenizer(const std::string& folder);
// Copies what a folder holds beside config.json and the weights. Errors: those of ReadFile and
// AtomicFile.
Status CopyTokenizerFiles(const std::string& from, const std::string& to, bool overwrite);

// Writes config.json, the last file, and opens the whole. Errors: those of AtomicFile and
// Checkpoint::Open.
Status FinishFolder(const std::string& path, const Json& config, bool overwrite);

}  // namespace edgewise
