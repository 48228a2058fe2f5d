#include "engine/vocab_metadata.h"

#include <algorithm>
#include <cctype>
#include <iterator>
#include <utility>

#include "base/strings.h"

namespace edgewise {
namespace {

// Ends of generation beside those that FindEndOfGeneration knows: code completion, Gemma 4, Solar,
// MiniMax (llama.cpp, src/llama-vocab.cpp).
constexpr std::string_view kMoreEnds[] = {
    "<|flush|>",  "<|calls|>",    "<turn|>",    "<|tool_response>", "_<EOT>",
    "[e~[",       "<|fim_pad|>",  "<fim-pad>",  "<fim_pad>",        "<PAD>",
    "[PAD]",      "<|fim_repo|>", "<fim-repo>", "<|repo_name|>",    "<REPO>",
    "<reponame>", "<|file_sep|>"};

// Pre-tokenizers of families whose own tokenizer composes the text first (NFC).
constexpr std::string_view kNfc[] = {"qwen2", "qwen35", "deepseek-r1-qwen"};

// Pre-tokenizers for which llama.cpp turns these on when the file does not say.
constexpr std::string_view kIgnoreMerges[] = {"llama3",
                                              "llama-v3",
                                              "llama-bpe",
                                              "falcon3",
                                              "falcon-h1",
                                              "pixtral",
                                              "midm-2.0",
                                              "lfm2",
                                              "jina-v5-nano",
                                              "minicpm5",
                                              "tekken",
                                              "youtu",
                                              "granite-embed-multi-97m"};
constexpr std::string_view kAddBos[] = {"llama3",       "llama-v3", "llama-bpe", "falcon3",
                                        "falcon-h1",    "pixtral",  "midm-2.0",  "lfm2",
                                        "jina-v5-nano", "tekken",   "chameleon"};

// What GGUF has no key for.
constexpr const char* kExtraEnds = "edgewise.tokenizer.eog_token_ids";
constexpr const char* kLeftStrip = "edgewise.tokenizer.lstrip_token_ids";
constexpr const char* kRightStrip = "edgewise.tokenizer.rstrip_token_ids";

template <size_t n>
bool Contains(const std::string_view (&list)[n], std::string_view text) {
  return std::find(std::begin(list), std::end(list), text) != std::end(list);
}

// GGUF's name of a tokenizer kind, and the ids that llama.cpp assumes where the file names none
// (-1: none). Byte-level BPE has no such ids here: llama.cpp's 11 is a token of Falcon, wrong for
// every other model.
struct KindRow {
  TokenizerKind kind;
  const char* name;
  int32_t bos, eos, unk, sep, pad, mask;
  bool add_bos, add_eos, add_space_prefix;
};
constexpr KindRow kKinds[] = {
    {TokenizerKind::kSpm, "llama", 1, 2, 0, -1, -1, -1, true, false, true},
    {TokenizerKind::kBpe, "gpt2", -1, -1, -1, -1, -1, -1, false, false, false},
    {TokenizerKind::kWordPiece, "bert", 101, -1, 100, 102, 0, 103, true, true, false},
    {TokenizerKind::kUnigram, "t5", -1, 1, 2, -1, 0, -1, false, true, false},
};

struct IdRow {
  const char* key;
  std::optional<int32_t> Vocab::* field;
};
constexpr IdRow kIds[] = {
    {"tokenizer.ggml.bos_token_id", &Vocab::bos},
    {"tokenizer.ggml.eos_token_id", &Vocab::eos},
    {"tokenizer.ggml.unknown_token_id", &Vocab::unk},
    {"tokenizer.ggml.seperator_token_id", &Vocab::sep},
    {"tokenizer.ggml.padding_token_id", &Vocab::pad},
    {"tokenizer.ggml.cls_token_id", &Vocab::cls},
    {"tokenizer.ggml.mask_token_id", &Vocab::mask},
};

const KindRow& RowOf(TokenizerKind kind) {
  const auto* row = std::find_if(std::begin(kKinds), std::end(kKinds),
                                 [&](const KindRow& r) { return r.kind == kind; });
  EW_CHECK(row != std::end(kKinds));
  return *row;
}

Result<const KindRow*> ReadKind(const Metadata& metadata) {
  if (metadata.Find("tokenizer.ggml.model") == nullptr) {
    return MakeError(Code::kNotFound,
                     "the file has no tokenizer: the key tokenizer.ggml.model is missing");
  }
  EW_TRY(const std::string name, metadata.GetString("tokenizer.ggml.model"));
  for (const KindRow& row : kKinds) {
    if (name == row.name) return &row;
  }
  return MakeError(Code::kUnsupported, "the tokenizer model %s is none of llama, gpt2, bert and t5",
                   Quote(name).c_str());
}

Status ReadTypes(const Metadata& metadata, Vocab* vocab) {
  vocab->types.assign(vocab->tokens.size(), TokenType::kNormal);
  if (metadata.Find("tokenizer.ggml.token_type") == nullptr) return Ok{};
  EW_TRY(const auto types, metadata.GetInts("tokenizer.ggml.token_type"));
  if (types.size() != vocab->tokens.size()) {
    return MakeError(Code::kBadData, "tokenizer.ggml.token_type has %zu values for %zu tokens",
                     types.size(), vocab->tokens.size());
  }
  for (size_t i = 0; i < types.size(); ++i) {
    if (types[i] < 0 || types[i] > 6) {
      return MakeError(Code::kBadData, "tokenizer.ggml.token_type of token %zu is %lld, not 1 to 6",
                       i, static_cast<long long>(types[i]));
    }
    if (types[i] != 0)
      vocab->types[i] = static_cast<TokenType>(types[i]);  // 0: undefined, taken as normal
  }
  return Ok{};
}

Status ReadScores(const Metadata& metadata, Vocab* vocab) {
  if (vocab->kind != TokenizerKind::kSpm && vocab->kind != TokenizerKind::kUnigram) return Ok{};
  const auto* scores = metadata.FindFloats("tokenizer.ggml.scores");
  if (scores == nullptr || scores->size() != vocab->tokens.size()) {
    return MakeError(Code::kBadData, "tokenizer.ggml.scores has %zu values for %zu tokens",
                     scores ? scores->size() : 0, vocab->tokens.size());
  }
  vocab->scores = *scores;
  return Ok{};
}

Status ReadMerges(const Metadata& metadata, Vocab* vocab) {
  if (vocab->kind != TokenizerKind::kBpe) return Ok{};
  const auto* merges = metadata.FindStrings("tokenizer.ggml.merges");
  if (merges == nullptr) {
    return MakeError(Code::kBadData, "tokenizer.ggml.merges is missing; a gpt2 tokenizer needs it");
  }
  vocab->merges = *merges;
  return Ok{};
}

// Reads an id if the key is there. A padding id outside the vocabulary is left out: converters
// write such ones, and text generation never pads.
Status ReadId(const Metadata& metadata, const char* key, size_t count, std::optional<int32_t>* id) {
  if (metadata.Find(key) == nullptr) return Ok{};
  EW_TRY(const uint64_t value, metadata.GetUint(key));
  if (value < count) {
    *id = static_cast<int32_t>(value);
    return Ok{};
  }
  if (std::string_view(key) == "tokenizer.ggml.padding_token_id") return Ok{};
  return MakeError(Code::kBadData, "%s is %llu, but there are only %zu tokens", key,
                   static_cast<unsigned long long>(value), count);
}

Status ReadIds(const Metadata& metadata, const KindRow& row, Vocab* vocab) {
  const auto fallback = [&](int32_t id) -> std::optional<int32_t> {
    if (id < 0 || static_cast<size_t>(id) >= vocab->tokens.size()) return std::nullopt;
    return id;
  };
  vocab->bos = fallback(row.bos);
  vocab->eos = fallback(row.eos);
  vocab->unk = fallback(row.unk);
  vocab->sep = fallback(row.sep);
  vocab->pad = fallback(row.pad);
  vocab->mask = fallback(row.mask);
  for (const IdRow& id : kIds)
    EW_TRY(ReadId(metadata, id.key, vocab->tokens.size(), &(vocab->*id.field)));
  if (row.kind == TokenizerKind::kWordPiece && !vocab->cls) vocab->cls = vocab->bos;
  return Ok{};
}

// Appends the ids of an array of our own, if it is there.
Status ReadIdList(const Metadata& metadata, const char* key, size_t count,
                  std::vector<int32_t>* list) {
  if (metadata.Find(key) == nullptr) return Ok{};
  EW_TRY(const auto ids, metadata.GetInts(key));
  for (int64_t id : ids) {
    if (id < 0 || static_cast<uint64_t>(id) >= count) {
      return MakeError(Code::kBadData, "%s names token %lld of %zu", key,
                       static_cast<long long>(id), count);
    }
    list->push_back(static_cast<int32_t>(id));
  }
  return Ok{};
}

Status ReadEnds(const Metadata& metadata, Vocab* vocab) {
  for (const char* key : {"tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id",
                          "tokenizer.ggml.fim_pad_token_id", "tokenizer.ggml.fim_rep_token_id",
                          "tokenizer.ggml.fim_sep_token_id"}) {
    std::optional<int32_t> id;
    EW_TRY(ReadId(metadata, key, vocab->tokens.size(), &id));
    if (id) vocab->eog.push_back(*id);
  }
  EW_TRY(ReadIdList(metadata, kExtraEnds, vocab->tokens.size(), &vocab->eog));
  AddKnownEndTokens(vocab);
  return Ok{};
}

bool IsSpecial(TokenType type) {
  return type == TokenType::kControl || type == TokenType::kUserDefined ||
         type == TokenType::kUnknown;
}

// Which special tokens swallow white space. GGUF does not say; Phi-3 is known by its name, as in
// llama.cpp.
Status ReadStrips(const Metadata& metadata, Vocab* vocab) {
  const size_t count = vocab->tokens.size();
  EW_TRY(ReadIdList(metadata, kLeftStrip, count, &vocab->lstrip));
  EW_TRY(ReadIdList(metadata, kRightStrip, count, &vocab->rstrip));
  EW_TRY(std::string name, metadata.GetString("general.name", ""));
  for (char& c : name) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  const bool phi3 =
      name.find("phi-3") != std::string::npos || name.find("phi3") != std::string::npos;
  if (!phi3 || !vocab->rstrip.empty()) return Ok{};
  for (size_t i = 0; i < count; ++i) {
    const std::string& text = vocab->tokens[i];
    if (!IsSpecial(vocab->types[i]) || text == "<unk>" || text == "<s>" || text == "<|endoftext|>")
      continue;
    vocab->rstrip.push_back(static_cast<int32_t>(i));
  }
  return Ok{};
}

Status ReadFlags(const Metadata& metadata, const KindRow& row, Vocab* vocab) {
  const bool bpe = row.kind == TokenizerKind::kBpe;
  EW_TRY(vocab->add_bos, metadata.GetBool("tokenizer.ggml.add_bos_token",
                                          bpe ? Contains(kAddBos, vocab->pre) : row.add_bos));
  // A WordPiece text ends with its separator, which has a key of its own.
  const char* end_key = row.kind == TokenizerKind::kWordPiece ? "tokenizer.ggml.add_sep_token"
                                                              : "tokenizer.ggml.add_eos_token";
  EW_TRY(vocab->add_eos, metadata.GetBool(end_key, row.add_eos));
  EW_TRY(vocab->add_space_prefix,
         metadata.GetBool("tokenizer.ggml.add_space_prefix", row.add_space_prefix));
  EW_TRY(vocab->remove_extra_whitespaces,
         metadata.GetBool("tokenizer.ggml.remove_extra_whitespaces", false));
  vocab->ignore_merges = bpe && Contains(kIgnoreMerges, vocab->pre);
  EW_TRY(vocab->nfc,
         metadata.GetBool("tokenizer.ggml.normalizer.nfc", bpe && Contains(kNfc, vocab->pre)));
  EW_TRY(vocab->lowercase, metadata.GetBool("tokenizer.ggml.normalizer.lowercase", true));
  EW_TRY(vocab->strip_accents,
         metadata.GetBool("tokenizer.ggml.normalizer.strip_accents", vocab->lowercase));
  EW_TRY(vocab->chat_template, metadata.GetString("tokenizer.chat_template", ""));
  return Ok{};
}

Status ReadCharsmap(const Metadata& metadata, Vocab* vocab) {
  constexpr const char* kKey = "tokenizer.ggml.precompiled_charsmap";
  if (metadata.Find(kKey) == nullptr) return Ok{};
  EW_TRY(const auto bytes, metadata.GetInts(kKey));
  for (int64_t byte : bytes) {
    if (byte < -128 || byte > 255) {
      return MakeError(Code::kBadData, "%s holds %lld, which is no byte", kKey,
                       static_cast<long long>(byte));
    }
    vocab->precompiled_charsmap += static_cast<char>(byte);
  }
  return Ok{};
}

bool StartsWithSpaceMark(std::string_view token) { return token.starts_with("\u2581"); }

// GGUF marks where a WordPiece word begins (U+2581), Hugging Face where it goes on ("##").
std::vector<std::string> WordPieceTokens(const Vocab& vocab) {
  size_t begins = 0, goes_on = 0;
  for (const std::string& token : vocab.tokens) {
    begins += StartsWithSpaceMark(token);
    goes_on += token.starts_with("##");
  }
  std::vector<std::string> tokens = vocab.tokens;
  if (begins >= goes_on) return tokens;
  for (size_t i = 0; i < tokens.size(); ++i) {
    if (vocab.types[i] == TokenType::kControl) continue;
    tokens[i] = tokens[i].starts_with("##") ? tokens[i].substr(2) : "\u2581" + tokens[i];
  }
  return tokens;
}

// llama.cpp has keys for two more ends beside eos; those it finds by their text need none.
void AddEndKeys(const Vocab& vocab, Metadata* metadata) {
  Vocab bare = vocab;
  bare.eog.clear();
  AddKnownEndTokens(&bare);
  std::vector<int32_t> more;
  std::set_difference(vocab.eog.begin(), vocab.eog.end(), bare.eog.begin(), bare.eog.end(),
                      std::back_inserter(more));
  if (!more.empty()) metadata->Set("tokenizer.ggml.eot_token_id", static_cast<uint32_t>(more[0]));
  if (more.size() > 1) metadata->Set("tokenizer.ggml.eom_token_id", static_cast<uint32_t>(more[1]));
  if (more.size() > 2) {
    metadata->Set(kExtraEnds, MetaArray(std::vector<int32_t>(more.begin() + 2, more.end())));
  }
}

void AddFlagKeys(const Vocab& vocab, Metadata* metadata) {
  metadata->Set("tokenizer.ggml.add_bos_token", vocab.add_bos);
  if (vocab.kind == TokenizerKind::kWordPiece) {
    metadata->Set("tokenizer.ggml.normalizer.lowercase", vocab.lowercase);
    metadata->Set("tokenizer.ggml.normalizer.strip_accents", vocab.strip_accents);
    metadata->Set("tokenizer.ggml.add_sep_token", vocab.add_eos);
  } else {
    metadata->Set("tokenizer.ggml.add_eos_token", vocab.add_eos);
  }
  if (vocab.kind == TokenizerKind::kSpm || vocab.kind == TokenizerKind::kUnigram) {
    metadata->Set("tokenizer.ggml.add_space_prefix", vocab.add_space_prefix);
  }
  if (vocab.kind == TokenizerKind::kUnigram) {
    metadata->Set("tokenizer.ggml.remove_extra_whitespaces", vocab.remove_extra_whitespaces);
  }
  if (!vocab.precompiled_charsmap.empty()) {
    metadata->Set("tokenizer.ggml.precompiled_charsmap",
                  MetaArray(std::vector<uint8_t>(vocab.precompiled_charsmap.begin(),
                                                 vocab.precompiled_charsmap.end())));
  }
  if (vocab.kind == TokenizerKind::kBpe && vocab.nfc != Contains(kNfc, vocab.pre)) {
    metadata->Set("tokenizer.ggml.normalizer.nfc", vocab.nfc);
  }
  if (!vocab.lstrip.empty()) metadata->Set(kLeftStrip, MetaArray(vocab.lstrip));
  if (!vocab.rstrip.empty()) metadata->Set(kRightStrip, MetaArray(vocab.rstrip));
  if (!vocab.chat_template.empty()) metadata->Set("tokenizer.chat_template", vocab.chat_template);
}

}  // namespace

Result<Vocab> VocabFromMetadata(const Metadata& metadata) {
  EW_TRY(const KindRow* row, ReadKind(metadata));
  Vocab vocab;
  vocab.kind = row->kind;
  if (vocab.kind == TokenizerKind::kBpe) {
    EW_TRY(vocab.pre, metadata.GetString("tokenizer.ggml.pre", "default"));
  }
  const auto* tokens = metadata.FindStrings("tokenizer.ggml.tokens");
  if (tokens == nullptr || tokens->empty()) {
    return MakeError(Code::kBadData, "tokenizer.ggml.tokens is missing or empty");
  }
  vocab.tokens = *tokens;
  EW_TRY(ReadScores(metadata, &vocab));
  EW_TRY(ReadTypes(metadata, &vocab));
  EW_TRY(ReadMerges(metadata, &vocab));
  EW_TRY(ReadIds(metadata, *row, &vocab));
  EW_TRY(ReadFlags(metadata, *row, &vocab));
  EW_TRY(ReadCharsmap(metadata, &vocab));
  EW_TRY(ReadEnds(metadata, &vocab));
  EW_TRY(ReadStrips(metadata, &vocab));
  return vocab;
}

void AddKnownEndTokens(Vocab* vocab) {
  const auto id_of = [&](std::string_view text) {
    return std::find(vocab->tokens.begin(), vocab->tokens.end(), text) - vocab->tokens.begin();
  };
  const auto has = [&](std::string_view text) {
    return id_of(text) < static_cast<std::ptrdiff_t>(vocab->tokens.size());
  };
  const auto known = FindEndOfGeneration(*vocab);
  vocab->eog.insert(vocab->eog.end(), known.begin(), known.end());
  for (size_t i = 0; i < vocab->tokens.size(); ++i) {
    if (!IsSpecial(vocab->types[i]) || !Contains(kMoreEnds, vocab->tokens[i])) continue;
    vocab->eog.push_back(static_cast<int32_t>(i));
  }
  std::sort(vocab->eog.begin(), vocab->eog.end());
  vocab->eog.erase(std::unique(vocab->eog.begin(), vocab->eog.end()), vocab->eog.end());

  // With these tokens a message's end is not the turn's end.
  if (has("<|flush|>") && has("<|calls|>"))
    std::erase(vocab->eog, static_cast<int32_t>(id_of("<|end|>")));
  if (has("<|tool_response>")) std::erase(vocab->eog, static_cast<int32_t>(id_of("</s>")));
  for (int32_t id : vocab->eog) vocab->types[static_cast<size_t>(id)] = TokenType::kControl;
}

void AddVocabToMetadata(const Vocab& vocab, Metadata* metadata) {
  const bool scored = vocab.kind == TokenizerKind::kSpm || vocab.kind == TokenizerKind::kUnigram;
  metadata->Set("tokenizer.ggml.model", std::string(RowOf(vocab.kind).name));
  metadata->Set("tokenizer.ggml.pre", vocab.pre.empty() ? std::string("default") : vocab.pre);
  metadata->Set(
      "tokenizer.ggml.tokens",
      MetaArray(vocab.kind == TokenizerKind::kWordPiece ? WordPieceTokens(vocab) : vocab.tokens));
  if (scored) metadata->Set("tokenizer.ggml.scores", MetaArray(vocab.scores));
  std::vector<int32_t> types;
  for (TokenType type : vocab.types) types.push_back(static_cast<int32_t>(type));
  metadata->Set("tokenizer.ggml.token_type", MetaArray(std::move(types)));
  if (vocab.kind == TokenizerKind::kBpe)
    metadata->Set("tokenizer.ggml.merges", MetaArray(vocab.merges));
  for (const IdRow& id : kIds) {
    const auto& value = vocab.*id.field;
    if (value) metadata->Set(id.key, static_cast<uint32_t>(*value));
  }
  AddEndKeys(vocab, metadata);
  AddFlagKeys(vocab, metadata);
}

}  // namespace edgewise
