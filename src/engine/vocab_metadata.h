// Vocab to and from GGUF's tokenizer.ggml.* keys, and from the tokenizer files of a model folder.
#pragma once

#include <string>

#include "base/result.h"
#include "formats/metadata.h"
#include "model/checkpoint.h"
#include "text/tokenizer.h"

namespace edgewise {

// Errors: kNotFound (the file has no tokenizer), kBadData, kUnsupported (an unknown tokenizer model).
Result<Vocab> VocabFromMetadata(const Metadata& metadata);

// Adds tokenizer.ggml.* and tokenizer.chat_template as llama.cpp's converter writes them.
void AddVocabToMetadata(const Vocab& vocab, Metadata* metadata);

// Finds the tokenizer that belongs to a checkpoint: its metadata (GGUF), tokenizer.json or tokenizer.model in its folder (HF),
// or `tokenizer_path` (llama2.c: tokenizer.bin; when empty the file tokenizer.bin or tok<vocab size>.bin beside the model).
Result<Vocab> LoadVocab(const Checkpoint& checkpoint, const std::string& tokenizer_path = "");

}  // namespace edgewise
