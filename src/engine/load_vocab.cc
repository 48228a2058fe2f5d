// LoadVocab: which tokenizer files belong to a model, and how they are put together.
#include <algorithm>
#include <cstddef>
#include <span>

#include "base/file.h"
#include "base/json.h"
#include "base/strings.h"
#include "engine/vocab_metadata.h"
#include "formats/gguf.h"
#include "text/tokenizer_files.h"

namespace edgewise {
namespace {

constexpr uint64_t kMaxFileBytes = 256ull << 20;

std::span<const std::byte> Bytes(const std::string& text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

// SentencePiece models are protobufs whose first field is a piece; published Llama-3 ranks are
// lines of base64.
bool LooksLikeSentencePiece(std::byte first) { return first == std::byte{'\n'}; }

Result<std::string> ReadTokenizerFile(const std::string& path) {
  return ReadFile(path, kMaxFileBytes);
}

// Null when the file is absent.
Result<Json> ReadOptionalJson(const std::string& path) {
  if (!FileExists(path)) return Json();
  EW_TRY(const std::string text, ReadTokenizerFile(path));
  return ParseJson(text).In(path);
}

// Some added tokens are not marked special although they are (llama.cpp, conversion/base.py).
bool LooksSpecial(std::string_view token) {
  const auto between = [token](std::string_view open, std::string_view close) {
    return token.size() >= open.size() + close.size() && token.starts_with(open) &&
           token.ends_with(close);
  };
  return token == "<pad>" || token == "<mask>" || token == "<2mass>" || token == "[@BOS@]" ||
         between("<|", "|>") || between("<\uFF5C", "\uFF5C>") || between("<unused", ">");
}

// Makes room for token `id` with unused tokens.
void PadTo(size_t size, Vocab* vocab) {
  while (vocab->tokens.size() < size) {
    vocab->tokens.push_back(Format("[PAD%zu]", vocab->tokens.size()));
    vocab->types.push_back(TokenType::kUnused);
    if (vocab->kind == TokenizerKind::kSpm || vocab->kind == TokenizerKind::kUnigram)
      vocab->scores.push_back(-10000.0f);
  }
}

void SetAddedToken(size_t id, std::string text, TokenType type, Vocab* vocab) {
  PadTo(id + 1, vocab);
  vocab->tokens[id] = std::move(text);
  vocab->types[id] = type;
  vocab->scores[id] = -1000.0f;
}

bool Flag(const Json& object, std::string_view key) {
  const Json* value = object.Find(key);
  return value && value->AsBool().value_or(false);
}

std::string SpaceMarksToSpaces(std::string_view text) {
  std::string result;
  for (std::string_view part : Split(text, "\u2581")) {
    if (!result.empty() || part.data() != text.data()) result += ' ';
    result += part;
  }
  return result;
}

// Tokens that Hugging Face keeps beside a SentencePiece model. Those past the embedding's last row
// cannot be used: left out.
Status AddFolderTokens(const Json& added, const Json& config, size_t model_size, Vocab* vocab) {
  if (const JsonObject* pairs = added.AsObject()) {
    for (const auto& [text, value] : *pairs) {
      const auto id = value.AsUint();
      if (!id)
        return MakeError(Code::kBadData, "added_tokens.json: %s has no id", Quote(text).c_str());
      if (*id < model_size) SetAddedToken(*id, text, TokenType::kUserDefined, vocab);
    }
  }
  const Json* decoder = config.Find("added_tokens_decoder");
  const JsonObject* rows = decoder ? decoder->AsObject() : nullptr;
  if (rows == nullptr) return Ok{};
  for (const auto& [key, row] : *rows) {
    const auto id = ParseInt(key);
    const Json* content = row.Find("content");
    const std::string* text = content ? content->AsString() : nullptr;
    if (!id || *id < 0 || text == nullptr) {
      return MakeError(Code::kBadData,
                       "tokenizer_config.json: malformed row %s of added_tokens_decoder",
                       Quote(key).c_str());
    }
    if (static_cast<uint64_t>(*id) >= model_size) continue;
    const bool control = Flag(row, "special") || LooksSpecial(*text);
    SetAddedToken(static_cast<size_t>(*id), control ? *text : SpaceMarksToSpaces(*text),
                  control ? TokenType::kControl : TokenType::kUserDefined, vocab);
    if (Flag(row, "lstrip")) vocab->lstrip.push_back(static_cast<int32_t>(*id));
    if (Flag(row, "rstrip")) vocab->rstrip.push_back(static_cast<int32_t>(*id));
  }
  return Ok{};
}

// Takes away tokens that the configuration added past the embedding's last row, such as a padding
// token for training.
Status DropAddedPast(size_t model_size, Vocab* vocab) {
  if (vocab->tokens.size() <= model_size) return Ok{};
  const auto past = [&](int32_t id) { return static_cast<size_t>(id) >= model_size; };
  for (const auto* id : {&vocab->bos, &vocab->eos}) {
    if (!*id || !past(**id)) continue;
    return MakeError(Code::kBadData,
                     "the special token %s has id %d, but the model's embedding has %zu rows",
                     Quote(vocab->tokens[static_cast<size_t>(**id)]).c_str(), **id, model_size);
  }
  for (auto* id : {&vocab->unk, &vocab->pad, &vocab->sep, &vocab->cls, &vocab->mask}) {
    if (*id && past(**id)) id->reset();
  }
  for (auto* ids : {&vocab->eog, &vocab->lstrip, &vocab->rstrip}) std::erase_if(*ids, past);
  vocab->tokens.resize(model_size);
  vocab->types.resize(model_size);
  if (!vocab->scores.empty()) vocab->scores.resize(model_size);
  return Ok{};
}

// An id or a list of ids.
Result<std::vector<int32_t>> ReadIds(const Json& object, const char* key, size_t count,
                                     const char* file) {
  std::vector<int32_t> ids;
  const Json* value = object.Find(key);
  if (value == nullptr || value->is_null()) return ids;
  const JsonArray one = {*value};
  for (const Json& item : value->is_array() ? *value->AsArray() : one) {
    const auto id = item.AsInt();
    if (!id || *id < 0 || static_cast<uint64_t>(*id) >= count) {
      return MakeError(Code::kBadData, "%s: %s is %s, which is no id of a vocabulary of %zu tokens",
                       file, key, item.Dump().c_str(), count);
    }
    ids.push_back(static_cast<int32_t>(*id));
  }
  return ids;
}

Status ApplyModelConfigs(const std::string& folder, Vocab* vocab) {
  EW_TRY(const Json config, ReadOptionalJson(folder + "/config.json"));
  EW_TRY(const Json generation, ReadOptionalJson(folder + "/generation_config.json"));
  const size_t count = vocab->tokens.size();
  EW_TRY(const auto bos, ReadIds(config, "bos_token_id", count, "config.json"));
  EW_TRY(const auto eos, ReadIds(config, "eos_token_id", count, "config.json"));
  EW_TRY(const auto more, ReadIds(generation, "eos_token_id", count, "generation_config.json"));
  if (!vocab->bos && !bos.empty()) vocab->bos = bos.front();
  if (!vocab->eos && !eos.empty()) vocab->eos = eos.front();
  vocab->eog.insert(vocab->eog.end(), eos.begin(), eos.end());
  vocab->eog.insert(vocab->eog.end(), more.begin(), more.end());
  return Ok{};
}

Status ApplyChatTemplate(const std::string& folder, Vocab* vocab) {
  if (!vocab->chat_template.empty()) return Ok{};
  const std::string path = folder + "/chat_template.jinja";
  if (FileExists(path)) {
    EW_TRY(vocab->chat_template, ReadTokenizerFile(path));
    return Ok{};
  }
  EW_TRY(const Json wrapped, ReadOptionalJson(folder + "/chat_template.json"));
  const Json* text = wrapped.Find("chat_template");
  if (text != nullptr && text->AsString() != nullptr) vocab->chat_template = *text->AsString();
  return Ok{};
}

Result<Vocab> ParseModelFile(const std::string& path) {
  EW_TRY(const std::string text, ReadTokenizerFile(path));
  if (!text.empty() && LooksLikeSentencePiece(Bytes(text)[0]))
    return ParseSentencePieceModel(Bytes(text)).In(path);
  return ParseTiktokenRanks(text).In(path);
}

// llama.cpp's converter takes tokenizer.model where there is a SentencePiece one, else
// tokenizer.json.
Result<Vocab> ReadFolderVocab(const std::string& folder, size_t model_size) {
  const std::string model = folder + "/tokenizer.model";
  const std::string json = folder + "/tokenizer.json";
  EW_TRY(const Json config, ReadOptionalJson(folder + "/tokenizer_config.json"));
  Vocab vocab;
  bool from_model = FileExists(model);
  if (from_model && FileExists(json)) {
    EW_TRY(const MappedFile file, MappedFile::Open(model));
    from_model = !file.bytes().empty() && LooksLikeSentencePiece(file.bytes()[0]);
  }
  if (from_model) {
    EW_TRY(vocab, ParseModelFile(model));
    if (vocab.kind == TokenizerKind::kSpm) {
      EW_TRY(const Json added, ReadOptionalJson(folder + "/added_tokens.json"));
      EW_TRY(AddFolderTokens(added, config, model_size, &vocab).In(folder));
    }
  } else if (FileExists(json)) {
    EW_TRY(const std::string text, ReadTokenizerFile(json));
    EW_TRY(vocab, ParseTokenizerJson(text).In(json));
  } else {
    return MakeError(
        Code::kNotFound,
        "%s: neither tokenizer.model nor tokenizer.json is here; name one with --tokenizer",
        folder.c_str());
  }
  const size_t own_tokens = vocab.tokens.size();
  EW_TRY(ApplyTokenizerConfig(config, &vocab).In(folder + "/tokenizer_config.json"));
  if (own_tokens <= model_size) EW_TRY(DropAddedPast(model_size, &vocab).In(folder));
  if (vocab.tokens.size() > model_size) {
    return MakeError(Code::kBadData,
                     "%s: the tokenizer has %zu tokens, but the model's embedding has %zu rows",
                     folder.c_str(), vocab.tokens.size(), model_size);
  }
  PadTo(model_size, &vocab);
  EW_TRY(ApplyModelConfigs(folder, &vocab).In(folder));
  EW_TRY(ApplyChatTemplate(folder, &vocab));
  AddKnownEndTokens(&vocab);
  return vocab;
}

std::string FolderOf(const std::string& path) {
  const size_t slash = path.rfind('/');
  return slash == std::string::npos ? "." : path.substr(0, slash);
}

Result<Vocab> ReadLlama2cVocab(const std::string& path, uint32_t vocab_size) {
  EW_TRY(const std::string text, ReadTokenizerFile(path));
  EW_TRY(Vocab vocab, ParseLlama2cTokenizer(Bytes(text), vocab_size).In(path));
  AddKnownEndTokens(&vocab);
  return vocab;
}

// A file or folder that the user named.
Result<Vocab> ReadNamedVocab(const std::string& path, size_t model_size) {
  if (IsDirectory(path)) return ReadFolderVocab(path, model_size);
  EW_TRY(const std::string text, ReadTokenizerFile(path));
  if (text.starts_with("GGUF")) {
    EW_TRY(const GgufFile file, GgufFile::Open(path));
    return VocabFromMetadata(file.metadata()).In(path);
  }
  Vocab vocab;
  if (path.ends_with(".bin")) return ReadLlama2cVocab(path, static_cast<uint32_t>(model_size));
  if (path.ends_with(".json")) {
    EW_TRY(vocab, ParseTokenizerJson(text).In(path));
    EW_TRY(const Json config, ReadOptionalJson(FolderOf(path) + "/tokenizer_config.json"));
    EW_TRY(ApplyTokenizerConfig(config, &vocab).In(path));
  } else {
    EW_TRY(vocab, ParseModelFile(path));
  }
  PadTo(model_size, &vocab);
  AddKnownEndTokens(&vocab);
  return vocab;
}

}  // namespace

Result<Vocab> LoadVocab(const Checkpoint& checkpoint, const std::string& tokenizer_path) {
  const uint32_t size = checkpoint.spec().vocab_size;
  const std::string& path = checkpoint.path();
  if (!tokenizer_path.empty()) {
    EW_TRY(Vocab vocab, ReadNamedVocab(tokenizer_path, size));
    if (vocab.tokens.size() == size) return vocab;
    return MakeError(Code::kBadData,
                     "%s: the tokenizer has %zu tokens, but the model's embedding has %u rows",
                     tokenizer_path.c_str(), vocab.tokens.size(), size);
  }
  switch (checkpoint.kind()) {
    case CheckpointKind::kGguf:
      return VocabFromMetadata(checkpoint.metadata()).In(path);
    case CheckpointKind::kHfFolder:
      return ReadFolderVocab(path, size);
    case CheckpointKind::kConfig:
      return ReadFolderVocab(FolderOf(path), size);
    case CheckpointKind::kLlama2c:
      break;
  }
  const std::string folder = FolderOf(path);
  for (const std::string& name : {std::string("tokenizer.bin"), Format("tok%u.bin", size)}) {
    if (FileExists(folder + "/" + name)) return ReadLlama2cVocab(folder + "/" + name, size);
  }
  return MakeError(
      Code::kNotFound,
      "%s: neither tokenizer.bin nor tok%u.bin lies beside it; name the tokenizer with --tokenizer",
      path.c_str(), size);
}

}  // namespace edgewise
