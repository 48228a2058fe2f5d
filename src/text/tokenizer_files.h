// Readers of tokenizer files: each turns untrusted bytes into a Vocab. Errors: kBadData, kUnsupported.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "base/json.h"
#include "base/result.h"
#include "text/tokenizer.h"

namespace edgewise {

// SentencePiece tokenizer.model (sentencepiece_model.proto), BPE or Unigram.
Result<Vocab> ParseSentencePieceModel(std::span<const std::byte> bytes);

// Hugging Face tokenizer.json (tokenizers library): BPE (byte-level, or byte-fallback as Llama-2's), WordPiece, Unigram.
// The pre-tokenizer is recognised by its patterns and named as llama.cpp's converter names it.
Result<Vocab> ParseTokenizerJson(std::string_view json);

// Applies tokenizer_config.json: bos/eos/pad/unk tokens, add_bos_token, chat_template. A null config changes nothing.
Status ApplyTokenizerConfig(const Json& config, Vocab* vocab);

// llama2.c tokenizer.bin: u32 max length, then {f32 score, u32 length, bytes} per token.
Result<Vocab> ParseLlama2cTokenizer(std::span<const std::byte> bytes, uint32_t vocab_size);

// Llama-3 tokenizer.model as published with the weights: lines of "base64 rank".
Result<Vocab> ParseTiktokenRanks(std::string_view text);

}  // namespace edgewise
