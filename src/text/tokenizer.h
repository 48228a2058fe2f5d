// Tokenizers: text to ids and back, built from a Vocab, whatever file that came from.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace edgewise {

// Numbered as tokenizer.ggml.token_type.
enum class TokenType : uint8_t {
  kNormal = 1,
  kUnknown = 2,
  kControl = 3,
  kUserDefined = 4,
  kUnused = 5,
  kByte = 6
};

enum class TokenizerKind : uint8_t {
  kSpm,        // SentencePiece BPE: "llama" in GGUF
  kBpe,        // byte-level BPE: "gpt2" in GGUF
  kWordPiece,  // BERT: "bert" in GGUF
  kUnigram,    // SentencePiece Unigram: "t5" in GGUF
};

// Everything a tokenizer file says, in the terms of GGUF's tokenizer.ggml.* keys.
struct Vocab {
  TokenizerKind kind = TokenizerKind::kSpm;
  std::string
      pre;  // pre-tokenizer name of BPE: "gpt-2", "llama-bpe", "qwen2", "deepseek-coder", ...
  std::vector<std::string> tokens;  // as stored: U+2581 for space (SPM), GPT-2 byte letters (BPE),
                                    // "##x" or the GGUF form (WordPiece)
  std::vector<float> scores;        // SPM, Unigram; empty otherwise
  std::vector<TokenType> types;     // one per token
  std::vector<std::string> merges;  // BPE: "left right", best first
  std::optional<int32_t> bos, eos, unk, pad, sep, cls, mask;
  std::vector<int32_t> eog;  // end-of-generation ids (eos, eot, eom ...), unique
  bool add_bos = false;
  bool add_eos = false;
  bool add_space_prefix = true;           // SPM, Unigram
  bool remove_extra_whitespaces = false;  // Unigram
  bool ignore_merges =
      false;  // BPE: a whole pre-token that is in the vocabulary stays whole (Llama 3)
  std::string precompiled_charsmap;  // Unigram: the normalizer's table, raw bytes
  bool lowercase = true;             // WordPiece: lower-case the text
  bool strip_accents = true;         // WordPiece: decompose the text and drop its nonspacing marks
  bool nfc = false;                  // BPE: compose the text first (Qwen2)
  std::vector<int32_t> lstrip;       // special tokens that swallow the white space before them
  std::vector<int32_t> rstrip;  // special tokens that swallow the white space after them (Phi-3)
  std::string chat_template;    // Jinja source; empty when the file has none
};

// Returns the ids of the special tokens that, by their text, end a generation in some model family,
// and of eos.
std::vector<int32_t> FindEndOfGeneration(const Vocab& vocab);

struct EncodeOptions {
  bool add_special = true;  // put bos / eos (cls / sep) where the vocabulary asks for it
  bool parse_special =
      false;  // control tokens written in the text become their ids; otherwise they are plain text
  // The text goes on after other text: SentencePiece's vocabularies put no space before it.
  bool continues = false;
};

// Immutable after Create, so thread-safe.
class Tokenizer {
 public:
  virtual ~Tokenizer();
  Tokenizer(const Tokenizer&) = delete;
  Tokenizer& operator=(const Tokenizer&) = delete;
  // Errors: kBadData (sizes disagree, ids out of range, duplicate merges), kUnsupported (an unknown
  // pre-tokenizer name).
  static Result<std::unique_ptr<Tokenizer>> Create(Vocab vocab);

  // Returns the ids of `text`. Any bytes are accepted; time is linear up to a logarithm in the
  // length. Errors: kInvalidArgument (a byte has no token and the vocabulary no unknown token; more
  // than 1 GiB of text).
  Result<std::vector<int32_t>> Encode(std::string_view text,
                                      const EncodeOptions& options = {}) const;

  // Returns the text of `ids`; control tokens give nothing unless `keep_special`. The space that
  // the tokenizer puts before the text is taken away from the first piece of text. Errors:
  // kInvalidArgument (an id out of range).
  Result<std::string> Decode(std::span<const int32_t> ids, bool keep_special = false) const;

  // The bytes that `id` contributes in the middle of a text (may be a part of a UTF-8 character);
  // empty for control tokens unless `keep_special`. `id` must be in range.
  std::string PieceBytes(int32_t id, bool keep_special = false) const;

  const Vocab& vocab() const { return vocab_; }
  int32_t size() const { return static_cast<int32_t>(vocab_.tokens.size()); }
  bool IsEndOfGeneration(int32_t id) const;
  // Returns the id of exactly this stored token.
  std::optional<int32_t> Find(std::string_view token) const;

 protected:
  // The vocabulary has passed the checks of Create.
  explicit Tokenizer(Vocab vocab);
  // Appends the ids of text that holds no special token. `first` is true at the very start of the
  // input or right after a special token.
  virtual Status EncodeText(std::string_view text, bool first, std::vector<int32_t>* ids) const = 0;
  // The bytes of a normal token.
  virtual std::string DecodePiece(int32_t id) const = 0;
  // Appends what stands for a character that has no token: the tokens of its bytes, or else one
  // unknown token for a run of them.
  Status AppendUnknown(std::string_view character, std::vector<int32_t>* ids) const;
  TokenType type(int32_t id) const { return vocab_.types[id]; }

 private:
  struct Index;
  Status EncodeWithSpecials(std::string_view text, const EncodeOptions& options,
                            std::vector<int32_t>* ids) const;
  Vocab vocab_;
  std::unique_ptr<const Index> index_;
};

// Fails unless both tokenizers give every id the same text. Errors: kInvalidArgument, naming the
// first difference.
Status CheckSameVocabulary(const Tokenizer& first, const Tokenizer& second);

// Turns ids into text as they come, holding back bytes that do not yet make a whole UTF-8
// character. The ids continue a text, so no leading space is taken away. Not thread-safe; the
// tokenizer must outlive it.
class StreamDecoder {
 public:
  explicit StreamDecoder(const Tokenizer& tokenizer, bool keep_special = false)
      : tokenizer_(tokenizer), keep_special_(keep_special) {}
  // Returns the characters completed by `id` (in range); ill-formed bytes come out as U+FFFD.
  std::string Push(int32_t id);
  // Returns what is still held back, ill-formed bytes as U+FFFD.
  std::string Finish();

 private:
  const Tokenizer& tokenizer_;
  bool keep_special_;
  std::string held_;
};

}  // namespace edgewise
