// Reader of tokenizer_config.json, which names special tokens and carries the chat template.
#include <algorithm>
#include <map>
#include <utility>

#include "base/strings.h"
#include "text/tokenizer_files.h"

namespace edgewise {
namespace {

Error Bad(const std::string& what) {
  return MakeError(Code::kBadData, "tokenizer_config.json: %s", what.c_str());
}

bool Flag(const Json& object, std::string_view key) {
  const Json* value = object.Find(key);
  return value && value->AsBool().value_or(false);
}

// Tokens that only the configuration knows are appended; for known ones it says what type they
// have.
Status ApplyAddedTokens(const Json& config, Vocab* vocab) {
  const Json* added = config.Find("added_tokens_decoder");
  if (!added || !added->AsObject()) return Ok{};
  std::map<int64_t, const Json*> by_id;
  for (const auto& [key, token] : *added->AsObject()) {
    auto id = ParseInt(key);
    if (!id || *id < 0)
      return Bad("added_tokens_decoder has the key " + Quote(key) + ", which is no id");
    by_id[*id] = &token;
  }
  for (const auto& [id, token] : by_id) {
    const Json* content = token->Find("content");
    if (!content || !content->AsString())
      return Bad(Format("added token %lld has no content", static_cast<long long>(id)));
    const auto count = static_cast<int64_t>(vocab->tokens.size());
    if (id > count) {
      return Bad(Format("added token %lld leaves a gap: the vocabulary has %lld tokens",
                        static_cast<long long>(id), static_cast<long long>(count)));
    }
    if (id == count) {
      vocab->tokens.push_back(*content->AsString());
      vocab->types.push_back(Flag(*token, "special") ? TokenType::kControl
                                                     : TokenType::kUserDefined);
      if (!vocab->scores.empty()) vocab->scores.push_back(0);
      if (Flag(*token, "lstrip")) vocab->lstrip.push_back(static_cast<int32_t>(id));
      if (Flag(*token, "rstrip")) vocab->rstrip.push_back(static_cast<int32_t>(id));
    }
  }
  return Ok{};
}

// A special token is a string, or an object with its content.
Status ApplyNamedToken(const Json& config, const char* key, Vocab* vocab,
                       std::optional<int32_t>* id) {
  const Json* value = config.Find(key);
  if (value && value->is_object()) value = value->Find("content");
  if (!value || value->is_null()) return Ok{};
  const std::string* text = value->AsString();
  if (!text) return Bad(std::string(key) + " is a " + value->TypeName() + ", not a string");
  const auto token = std::find(vocab->tokens.begin(), vocab->tokens.end(), *text);
  if (token == vocab->tokens.end())
    return Bad(std::string(key) + " is " + Quote(*text) + ", which is no token");
  *id = static_cast<int32_t>(token - vocab->tokens.begin());
  return Ok{};
}

Status ApplyFlag(const Json& config, const char* key, bool* flag) {
  const Json* value = config.Find(key);
  if (!value || value->is_null()) return Ok{};
  if (!value->is_bool())
    return Bad(std::string(key) + " is a " + value->TypeName() + ", not true or false");
  *flag = *value->AsBool();
  return Ok{};
}

// The template is a string, or a list of named ones of which "default" counts.
Status ApplyChatTemplate(const Json& config, Vocab* vocab) {
  const Json* value = config.Find("chat_template");
  if (!value || value->is_null()) return Ok{};
  if (const std::string* text = value->AsString()) {
    vocab->chat_template = *text;
    return Ok{};
  }
  const JsonArray* named = value->AsArray();
  if (!named) return Bad(std::string("chat_template is a ") + value->TypeName());
  for (const Json& item : *named) {
    const Json* name = item.Find("name");
    const Json* text = item.Find("template");
    if (name && name->AsString() && *name->AsString() == "default" && text && text->AsString()) {
      vocab->chat_template = *text->AsString();
      return Ok{};
    }
  }
  return Bad("none of the chat templates is named \"default\"");
}

}  // namespace

Status ApplyTokenizerConfig(const Json& config, Vocab* vocab) {
  if (config.is_null()) return Ok{};
  if (!config.is_object())
    return Bad(std::string("the file is a ") + config.TypeName() + ", not an object");
  EW_TRY(ApplyAddedTokens(config, vocab));
  const std::pair<const char*, std::optional<int32_t>*> named[] = {
      {"bos_token", &vocab->bos},  {"eos_token", &vocab->eos}, {"unk_token", &vocab->unk},
      {"pad_token", &vocab->pad},  {"sep_token", &vocab->sep}, {"cls_token", &vocab->cls},
      {"mask_token", &vocab->mask}};
  for (const auto& [key, id] : named) EW_TRY(ApplyNamedToken(config, key, vocab, id));
  EW_TRY(ApplyFlag(config, "add_bos_token", &vocab->add_bos));
  EW_TRY(ApplyFlag(config, "add_eos_token", &vocab->add_eos));
  EW_TRY(ApplyChatTemplate(config, vocab));
  vocab->eog = FindEndOfGeneration(*vocab);
  return Ok{};
}

}  // namespace edgewise
