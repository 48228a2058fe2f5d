// Vocab to and from GGUF's tokenizer.ggml.* keys, and from the tokenizer files of a model folder.
#pragma once

#include <string>

#include "base/result.h"
#include "formats/metadata.h"
#include "model/checkpoint.h"
#include "text/tokenizer.h"

namespace edgewise {

// Errors: kNotFound (the file has no tokenizer), kBadData, kUnsupported (an unknown tokenizer
// model).
Result<Vocab> VocabFromMetadata(const Metadata& metadata);

// Adds tokenizer.ggml.* and tokenizer.chat_template as llama.cpp's converter writes them.
void AddVocabToMetadata(const Vocab& vocab, Metadata* metadata);

// Completes vocab->eog with the special tokens whose text is a well-known end of generation and
// with eos, and makes all of these control tokens, as llama.cpp does when it loads a vocabulary.
void AddKnownEndTokens(Vocab* vocab);

// Finds the tokenizer that belongs to a checkpoint: its metadata (GGUF), the SentencePiece
// tokenizer.model, else tokenizer.json in its folder (HF), or tokenizer.bin or tok<vocab size>.bin
// beside the model (llama2.c). `tokenizer_path`, when not empty, names the file or folder to read
// instead. A folder's vocabulary is padded to the rows of the embedding with unused tokens. Errors:
// kNotFound (no tokenizer; the message says what was looked for), kBadData, kUnsupported.
Result<Vocab> LoadVocab(const Checkpoint& checkpoint, const std::string& tokenizer_path = "");

}  // namespace edgewise
