// Reader of tokenizer.json: the model (vocabulary, merges, scores) and the added tokens.
#include <algorithm>
#include <cmath>
#include <string>
#include <unordered_map>
#include <utility>

#include "base/strings.h"
#include "text/tokenizer_files.h"
#include "text/tokenizer_json_rules.h"
#include "text/tokenizer_kinds.h"

namespace edgewise {
namespace {

// Ids may leave gaps, which become unused tokens, but not so many that a small file asks for much
// memory.
constexpr size_t kMaxGap = 4096;

Error Bad(const std::string& what) { return MakeError(Code::kBadData, "%s", what.c_str()); }

Result<std::string> GetString(const Json& object, const char* key) {
  const Json* value = object.Find(key);
  if (!value || !value->AsString()) return Bad(Format("\"%s\" is missing or no string", key));
  return *value->AsString();
}

bool GetFlag(const Json& object, const char* key) {
  const Json* value = object.Find(key);
  return value && value->AsBool().value_or(false);
}

// Old files do not name the model's type; its members give it away.
Result<std::string> ModelType(const Json& model) {
  if (const Json* type = model.Find("type"); type && type->AsString()) return *type->AsString();
  if (model.Find("merges")) return std::string("BPE");
  if (model.Find("max_input_chars_per_word")) return std::string("WordPiece");
  if (model.Find("vocab") && model.Find("vocab")->is_array()) return std::string("Unigram");
  return Bad("the model has no \"type\"");
}

// A token before it has its place.
struct Entry {
  uint64_t id;
  std::string_view text;
};

Result<std::vector<Entry>> ReadVocabObject(const Json& vocab) {
  std::vector<Entry> entries;
  const JsonObject* members = vocab.AsObject();
  if (!members) return Bad("model.vocab is no object");
  for (const auto& [text, id] : *members) {
    const auto number = id.AsUint();
    if (!number) return Bad("the id of " + Quote(text) + " is no whole number");
    entries.push_back({*number, text});
  }
  return entries;
}

Result<std::vector<Entry>> ReadVocabArray(const Json& vocab, std::vector<float>* scores) {
  std::vector<Entry> entries;
  const JsonArray* items = vocab.AsArray();
  if (!items) return Bad("model.vocab is no array");
  for (size_t i = 0; i < items->size(); ++i) {
    const JsonArray* pair = (*items)[i].AsArray();
    if (!pair || pair->size() != 2 || !(*pair)[0].AsString() || !(*pair)[1].AsDouble()) {
      return Bad(Format("model.vocab[%zu] is not a token and its score", i));
    }
    entries.push_back({i, *(*pair)[0].AsString()});
    scores->push_back(static_cast<float>(*(*pair)[1].AsDouble()));
  }
  return entries;
}

struct AddedToken {
  uint64_t id;
  std::string_view text;
  bool special, lstrip, rstrip;
};

Result<std::vector<AddedToken>> ReadAddedTokens(const Json& root) {
  std::vector<AddedToken> tokens;
  const Json* added = root.Find("added_tokens");
  if (!added || added->is_null()) return tokens;
  if (!added->AsArray()) return Bad("added_tokens is no array");
  for (const Json& item : *added->AsArray()) {
    const Json* id = item.Find("id");
    const Json* content = item.Find("content");
    if (!id || !id->AsUint() || !content || !content->AsString() || content->AsString()->empty()) {
      return Bad("an added token lacks an id or content");
    }
    tokens.push_back({*id->AsUint(), *content->AsString(), GetFlag(item, "special"),
                      GetFlag(item, "lstrip"), GetFlag(item, "rstrip")});
  }
  return tokens;
}

// Puts every token at its id.
Status PlaceTokens(const std::vector<Entry>& entries, const std::vector<AddedToken>& added,
                   Vocab* vocab) {
  const uint64_t limit = entries.size() + added.size() + kMaxGap;
  uint64_t count = 0;
  const auto check = [&](uint64_t id, std::string_view text) -> Status {
    if (id >= limit) {
      return Bad(Format("the id of %s is %llu, far above the %zu tokens of the file",
                        Quote(text).c_str(), static_cast<unsigned long long>(id),
                        entries.size() + added.size()));
    }
    count = std::max(count, id + 1);
    return Ok{};
  };
  for (const Entry& entry : entries) EW_TRY(check(entry.id, entry.text));
  for (const AddedToken& token : added) EW_TRY(check(token.id, token.text));

  vocab->tokens.resize(count);
  vocab->types.assign(count, TokenType::kUnused);
  std::vector<bool> taken(count);
  for (const Entry& entry : entries) {
    if (taken[entry.id]) {
      return Bad(Format("%s and %s have the same id", Quote(vocab->tokens[entry.id]).c_str(),
                        Quote(entry.text).c_str()));
    }
    taken[entry.id] = true;
    vocab->tokens[entry.id] = entry.text;
    vocab->types[entry.id] = TokenType::kNormal;
  }
  for (const AddedToken& token : added) {
    taken[token.id] = true;
    vocab->tokens[token.id] = token.text;
    vocab->types[token.id] = token.special ? TokenType::kControl : TokenType::kUserDefined;
    if (token.lstrip) vocab->lstrip.push_back(static_cast<int32_t>(token.id));
    if (token.rstrip) vocab->rstrip.push_back(static_cast<int32_t>(token.id));
  }
  for (size_t i = 0; i < count; ++i) {
    if (!taken[i]) vocab->tokens[i] = Format("[PAD%zu]", i);
  }
  return Ok{};
}

Status SetUnknown(const Json& model, Vocab* vocab) {
  const Json* unk = model.Find("unk_token");
  const Json* unk_id = model.Find("unk_id");
  if (unk_id && !unk_id->is_null()) {
    const auto id = unk_id->AsUint();
    if (!id || *id >= vocab->tokens.size()) return Bad("unk_id is out of range");
    vocab->unk = static_cast<int32_t>(*id);
  } else if (unk && unk->AsString()) {
    const auto token = std::find(vocab->tokens.begin(), vocab->tokens.end(), *unk->AsString());
    if (token == vocab->tokens.end())
      return Bad("unk_token is " + Quote(*unk->AsString()) + ", which is no token");
    vocab->unk = static_cast<int32_t>(token - vocab->tokens.begin());
  }
  if (vocab->unk) vocab->types[*vocab->unk] = TokenType::kUnknown;
  return Ok{};
}

// Merges are "left right", or [left, right] in newer files.
Result<std::vector<std::pair<std::string, std::string>>> ReadMerges(const Json& model) {
  std::vector<std::pair<std::string, std::string>> merges;
  const Json* list = model.Find("merges");
  if (!list || !list->AsArray()) return Bad("model.merges is missing or no array");
  for (const Json& item : *list->AsArray()) {
    const auto fail = [&] {
      return Bad(Format("model.merges[%zu] is not two parts", merges.size()));
    };
    if (const std::string* text = item.AsString()) {
      const size_t space = text->find(' ', 1);
      if (space == std::string::npos || space + 1 == text->size()) return fail();
      merges.emplace_back(text->substr(0, space), text->substr(space + 1));
    } else {
      const JsonArray* parts = item.AsArray();
      if (!parts || parts->size() != 2 || !(*parts)[0].AsString() || !(*parts)[1].AsString())
        return fail();
      merges.emplace_back(*(*parts)[0].AsString(), *(*parts)[1].AsString());
      if (merges.back().first.empty() || merges.back().second.empty()) return fail();
    }
  }
  return merges;
}

// SentencePiece BPE ranks a merge by the score of its result: the first merge that makes a token
// sets it.
Status ScoresFromMerges(const std::vector<std::pair<std::string, std::string>>& merges,
                        Vocab* vocab) {
  std::unordered_map<std::string_view, size_t> ids;
  for (size_t i = 0; i < vocab->tokens.size(); ++i) ids.emplace(vocab->tokens[i], i);
  const float lowest = -static_cast<float>(merges.size()) - 1;
  vocab->scores.assign(vocab->tokens.size(), lowest);
  for (size_t i = 0; i < merges.size(); ++i) {
    const std::string merged = merges[i].first + merges[i].second;
    const auto id = ids.find(merged);
    if (id == ids.end())
      return Bad(Format("model.merges[%zu] makes %s, which is no token", i, Quote(merged).c_str()));
    float& score = vocab->scores[id->second];
    if (score == lowest) score = -static_cast<float>(i);
  }
  return Ok{};
}

Status ReadBpe(const Json& root, const Json& model, Vocab* vocab) {
  for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    const Json* affix = model.Find(key);
    if (affix && affix->AsString() && !affix->AsString()->empty()) {
      return MakeError(Code::kUnsupported, "model.%s %s is not supported", key,
                       Quote(*affix->AsString()).c_str());
    }
  }
  EW_TRY(const auto merges, ReadMerges(model));
  if (IsByteLevel(root)) {
    vocab->kind = TokenizerKind::kBpe;
    vocab->add_space_prefix = false;
    vocab->ignore_merges = GetFlag(model, "ignore_merges");
    for (const auto& [left, right] : merges) {
      if (left.find(' ') != std::string::npos || right.find(' ') != std::string::npos) {
        return Bad(Format("a merge of %s and %s: byte-level parts hold no spaces",
                          Quote(left).c_str(), Quote(right).c_str()));
      }
      vocab->merges.push_back(left + " " + right);
    }
    return ApplyByteLevelRules(root, vocab);
  }
  vocab->kind = TokenizerKind::kSpm;
  if (GetFlag(model, "byte_fallback")) {
    for (size_t i = 0; i < vocab->tokens.size(); ++i) {
      if (ParseByteToken(vocab->tokens[i])) vocab->types[i] = TokenType::kByte;
    }
  }
  EW_TRY(ScoresFromMerges(merges, vocab));
  return ApplySpmRules(root, vocab);
}

Status ReadWordPiece(const Json& root, const Json& model, Vocab* vocab) {
  vocab->kind = TokenizerKind::kWordPiece;
  vocab->add_space_prefix = false;
  EW_TRY(const std::string prefix, GetString(model, "continuing_subword_prefix"));
  if (prefix != "##")
    return MakeError(Code::kUnsupported, "WordPiece with the prefix %s is not supported",
                     Quote(prefix).c_str());
  const Json* longest = model.Find("max_input_chars_per_word");
  if (longest && longest->AsInt() != 100) {
    return MakeError(Code::kUnsupported,
                     "WordPiece with words of other than 100 characters at most is not supported");
  }
  return ApplyWordPieceRules(root, vocab);
}

Status ReadUnigram(const Json& root, const Json& model, Vocab* vocab) {
  vocab->kind = TokenizerKind::kUnigram;
  vocab->scores.resize(vocab->tokens.size());  // added tokens have none
  for (size_t i = 0; GetFlag(model, "byte_fallback") && i < vocab->tokens.size(); ++i) {
    if (ParseByteToken(vocab->tokens[i])) vocab->types[i] = TokenType::kByte;
  }
  return ApplyUnigramRules(root, vocab);
}

Result<Vocab> Read(std::string_view text) {
  EW_TRY(const Json root, ParseJson(text));
  const Json* model = root.Find("model");
  if (!model || !model->is_object()) return Bad("\"model\" is missing or no object");
  EW_TRY(const std::string type, ModelType(*model));
  const Json* tokens = model->Find("vocab");
  if (!tokens) return Bad("model.vocab is missing");
  Vocab vocab;
  std::vector<Entry> entries;
  if (type == "Unigram") {
    EW_TRY(entries, ReadVocabArray(*tokens, &vocab.scores));
  } else {
    EW_TRY(entries, ReadVocabObject(*tokens));
  }
  EW_TRY(const auto added, ReadAddedTokens(root));
  EW_TRY(PlaceTokens(entries, added, &vocab));
  EW_TRY(SetUnknown(*model, &vocab));
  if (type == "BPE") {
    EW_TRY(ReadBpe(root, *model, &vocab));
  } else if (type == "WordPiece") {
    EW_TRY(ReadWordPiece(root, *model, &vocab));
  } else if (type == "Unigram") {
    EW_TRY(ReadUnigram(root, *model, &vocab));
  } else {
    return MakeError(Code::kUnsupported,
                     "model type %s is not supported; known ones: BPE, WordPiece, Unigram",
                     Quote(type).c_str());
  }
  EW_TRY(ApplyPostProcessor(root, &vocab));
  vocab.eog = FindEndOfGeneration(vocab);
  return vocab;
}

}  // namespace

Result<Vocab> ParseTokenizerJson(std::string_view json) { return Read(json).In("tokenizer.json"); }

}  // namespace edgewise
