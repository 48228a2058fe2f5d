#include "text/tokenizer_json_rules.h"

#include <algorithm>
#include <string>
#include <string_view>
#include <vector>

#include "base/strings.h"
#include "text/base64.h"
#include "text/tokenizer_kinds.h"

namespace edgewise {
namespace {

std::string_view Text(const Json& object, const char* key) {
  const Json* value = object.Find(key);
  return value && value->AsString() ? std::string_view(*value->AsString()) : std::string_view();
}

bool Flag(const Json& object, const char* key, bool fallback) {
  const Json* value = object.Find(key);
  return value ? value->AsBool().value_or(fallback) : fallback;
}

Error Unsupported(const char* section, const std::string& what) {
  return MakeError(Code::kUnsupported, "%s %s is not supported for this model", section,
                   what.c_str());
}

// Flattens nested sequences: {"type": "Sequence", "normalizers": [...]}.
void Flatten(const Json* step, const char* members, int depth, std::vector<const Json*>* steps) {
  if (!step || !step->is_object() || depth > 8) return;
  if (Text(*step, "type") != "Sequence") {
    steps->push_back(step);
    return;
  }
  const Json* list = step->Find(members);
  if (!list || !list->AsArray()) return;
  for (const Json& item : *list->AsArray()) Flatten(&item, members, depth + 1, steps);
}

std::vector<const Json*> Steps(const Json& root, const char* section, const char* members) {
  std::vector<const Json*> steps;
  Flatten(root.Find(section), members, 0, &steps);
  return steps;
}
std::vector<const Json*> Normalizers(const Json& root) {
  return Steps(root, "normalizer", "normalizers");
}
std::vector<const Json*> PreTokenizers(const Json& root) {
  return Steps(root, "pre_tokenizer", "pretokenizers");
}

std::string TypeOf(const Json& step) { return Quote(Text(step, "type")); }

// A pattern with line ends written as escapes.
std::string EscapeLineEnds(std::string_view pattern) {
  std::string out;
  for (const char c : pattern) {
    if (c == '\n') {
      out += "\\n";
    } else if (c == '\r') {
      out += "\\r";
    } else {
      out += c;
    }
  }
  return out;
}

// The regex or string of a Split or Replace.
std::string_view Pattern(const Json& step, const char* kind) {
  const Json* pattern = step.Find("pattern");
  return pattern ? Text(*pattern, kind) : std::string_view();
}

constexpr std::string_view kGpt2Steps =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

// The steps of each known pre-tokenizer, one per line; "gpt2" is the regex that ByteLevel has built
// in.
struct KnownSteps {
  std::string_view name;
  std::string_view steps;
};
constexpr KnownSteps kKnownSteps[] = {
    {"gpt-2", "gpt2\n"},
    {"llama-bpe",
     R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)"
     "\n"},
    {"qwen2",
     R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)"
     "\n"},
    {"starcoder", "digit\ngpt2\n"},
    {"falcon", "punctuation\ngpt2\ndigits\n[0-9][0-9][0-9]\n"},
    {"deepseek-coder",
     R"([\r\n])"
     "\n"
     R"(\s?\p{L}+)"
     "\n"
     R"(\s?\p{P}+)"
     "\n[\xE4\xB8\x80-\xE9\xBE\xA5\xE0\xA0\x80-\xE4\xB8\x80\xEA\xB0\x80-\xED\x9F\xBF]+\ndigit\n"},
};

// Writes the pre-tokenizer's steps in the form of kKnownSteps.
Result<std::string> DescribeSteps(const Json& root) {
  std::string steps;
  for (const Json* step : PreTokenizers(root)) {
    const std::string_view type = Text(*step, "type");
    if (type == "ByteLevel") {
      if (Flag(*step, "add_prefix_space", true))
        return Unsupported("pre_tokenizer", "ByteLevel with add_prefix_space");
      if (Flag(*step, "use_regex", true)) steps += "gpt2\n";
    } else if (type == "Digits") {
      steps += Flag(*step, "individual_digits", false) ? "digit\n" : "digits\n";
    } else if (type == "Punctuation" && Text(*step, "behavior") == "Contiguous") {
      steps += "punctuation\n";
    } else if (type == "Split" && !Pattern(*step, "Regex").empty()) {
      // "Removed" with "invert" keeps the matches; all known patterns match everything.
      const bool isolated = Text(*step, "behavior") == "Isolated" && !Flag(*step, "invert", false);
      const bool matches = Text(*step, "behavior") == "Removed" && Flag(*step, "invert", false);
      if (!isolated && !matches)
        return Unsupported("pre_tokenizer",
                           "Split with behavior " + Quote(Text(*step, "behavior")));
      const std::string pattern = EscapeLineEnds(Pattern(*step, "Regex"));
      steps += pattern == kGpt2Steps ? "gpt2" : pattern;
      steps += '\n';
    } else {
      return Unsupported("pre_tokenizer", TypeOf(*step));
    }
  }
  return steps;
}

bool IsReplaceBySpaceMark(const Json& step) {
  return Text(step, "type") == "Replace" && Pattern(step, "String") == " " &&
         Text(step, "content") == kSpaceMarkUtf8;
}

// Reads Metaspace, which writes U+2581 for spaces; true when it puts one before the text.
Result<bool> MetaspacePrefix(const Json& step) {
  if (Text(step, "replacement") != kSpaceMarkUtf8) {
    return Unsupported("pre_tokenizer",
                       "Metaspace with replacement " + Quote(Text(step, "replacement")));
  }
  const std::string_view scheme = Text(step, "prepend_scheme");
  if (scheme.empty()) return Flag(step, "add_prefix_space", true);
  return scheme != "never";
}

}  // namespace

bool IsByteLevel(const Json& root) {
  for (const Json* step : PreTokenizers(root)) {
    if (Text(*step, "type") == "ByteLevel") return true;
  }
  const Json* decoder = root.Find("decoder");
  return decoder && decoder->is_object() && Text(*decoder, "type") == "ByteLevel";
}

Status ApplyByteLevelRules(const Json& root, Vocab* vocab) {
  for (const Json* step : Normalizers(root)) {
    if (Text(*step, "type") != "NFC") return Unsupported("normalizer", TypeOf(*step));
    vocab->nfc = true;
  }
  EW_TRY(const std::string steps, DescribeSteps(root));
  for (const KnownSteps& known : kKnownSteps) {
    if (steps == known.steps) {
      vocab->pre = known.name;
      return Ok{};
    }
  }
  std::string names;
  for (const KnownSteps& known : kKnownSteps)
    names += std::string(names.empty() ? "" : ", ") + std::string(known.name);
  return MakeError(Code::kUnsupported, "the pre-tokenizer %s is not one of the known ones (%s)",
                   Quote(steps, 200).c_str(), names.c_str());
}

Status ApplySpmRules(const Json& root, Vocab* vocab) {
  bool prefix = false, marks = false;
  for (const Json* step : Normalizers(root)) {
    if (Text(*step, "type") == "Prepend" && Text(*step, "prepend") == kSpaceMarkUtf8) {
      prefix = true;
    } else if (IsReplaceBySpaceMark(*step)) {
      marks = true;
    } else {
      return Unsupported("normalizer", TypeOf(*step));
    }
  }
  for (const Json* step : PreTokenizers(root)) {
    if (Text(*step, "type") == "Metaspace") {
      EW_TRY(const bool adds, MetaspacePrefix(*step));
      prefix |= adds;
      marks = true;
    } else if (!(Text(*step, "type") == "Split" && Pattern(*step, "String") == " " && marks)) {
      // (A split at spaces does nothing once they are U+2581.)
      return Unsupported("pre_tokenizer", TypeOf(*step));
    }
  }
  if (!marks)
    return Unsupported("pre_tokenizer", "without ByteLevel, and without U+2581 for spaces,");
  vocab->add_space_prefix = prefix;
  return Ok{};
}

Status ApplyWordPieceRules(const Json& root, Vocab* vocab) {
  const auto normalizers = Normalizers(root);
  if (normalizers.size() != 1 || Text(*normalizers[0], "type") != "BertNormalizer") {
    return Unsupported("normalizer",
                       normalizers.empty() ? "null" : "other than a single BertNormalizer");
  }
  const Json& bert = *normalizers[0];
  if (!Flag(bert, "clean_text", true) || !Flag(bert, "handle_chinese_chars", true)) {
    return Unsupported("normalizer", "BertNormalizer without clean_text or handle_chinese_chars");
  }
  vocab->lowercase = Flag(bert, "lowercase", true);
  vocab->strip_accents = Flag(bert, "strip_accents", vocab->lowercase);
  const auto pre_tokenizers = PreTokenizers(root);
  if (pre_tokenizers.size() != 1 || Text(*pre_tokenizers[0], "type") != "BertPreTokenizer") {
    return Unsupported("pre_tokenizer",
                       pre_tokenizers.empty() ? "null" : TypeOf(*pre_tokenizers[0]));
  }
  for (size_t i = 0; i < vocab->tokens.size(); ++i) {
    if (vocab->tokens[i] == "[PAD]") vocab->pad = static_cast<int32_t>(i);
    if (vocab->tokens[i] == "[MASK]") vocab->mask = static_cast<int32_t>(i);
  }
  return Ok{};
}

Status ApplyUnigramRules(const Json& root, Vocab* vocab) {
  for (const Json* step : Normalizers(root)) {
    const std::string_view type = Text(*step, "type");
    if (type == "Precompiled") {
      auto table = DecodeBase64(Text(*step, "precompiled_charsmap"));
      if (!table) return std::move(table).error().In("precompiled_charsmap");
      vocab->precompiled_charsmap = *std::move(table);
    } else if (type == "Replace" && Pattern(*step, "Regex") == " {2,}") {
      vocab->remove_extra_whitespaces = true;
    } else if (type == "Strip") {
      vocab->remove_extra_whitespaces = true;
    } else {
      return Unsupported("normalizer", TypeOf(*step));
    }
  }
  bool metaspace = false;
  for (const Json* step : PreTokenizers(root)) {
    const std::string_view type = Text(*step, "type");
    if (type == "WhitespaceSplit") {
      vocab->remove_extra_whitespaces = true;
    } else if (type == "Metaspace") {
      EW_TRY(vocab->add_space_prefix, MetaspacePrefix(*step));
      metaspace = true;
    } else {
      return Unsupported("pre_tokenizer", TypeOf(*step));
    }
  }
  if (!metaspace) return Unsupported("pre_tokenizer", "without Metaspace");
  return Ok{};
}

namespace {

void SetBegin(int32_t id, Vocab* vocab) {
  (vocab->kind == TokenizerKind::kWordPiece ? vocab->cls : vocab->bos) = id;
  vocab->add_bos = true;
}
void SetEnd(int32_t id, Vocab* vocab) {
  (vocab->kind == TokenizerKind::kWordPiece ? vocab->sep : vocab->eos) = id;
  vocab->add_eos = true;
}

Result<int32_t> CheckedId(std::optional<uint64_t> id, const Vocab& vocab) {
  if (id && *id < vocab.tokens.size()) return static_cast<int32_t>(*id);
  return MakeError(Code::kBadData,
                   "post_processor: a special token has no id, or one that is out of range");
}

// {"single": [{"SpecialToken": {"id": "<s>"}}, {"Sequence": ...}], "special_tokens": {"<s>":
// {"ids": [1]}}}
Status ApplyTemplate(const Json& processor, Vocab* vocab) {
  const Json* single = processor.Find("single");
  if (!single || !single->AsArray())
    return MakeError(Code::kBadData, "post_processor: no template for a single text");
  bool after_text = false;
  for (const Json& item : *single->AsArray()) {
    if (item.Find("Sequence")) {
      after_text = true;
      continue;
    }
    const Json* special = item.Find("SpecialToken");
    const Json* table = processor.Find("special_tokens");
    const Json* entry = special && table ? table->Find(Text(*special, "id")) : nullptr;
    const Json* ids = entry ? entry->Find("ids") : nullptr;
    const JsonArray* list = ids ? ids->AsArray() : nullptr;
    EW_TRY(const int32_t id,
           CheckedId(list && list->size() == 1 ? (*list)[0].AsUint() : std::nullopt, *vocab));
    if (after_text ? vocab->add_eos : vocab->add_bos) {
      return Unsupported("post_processor", "with several special tokens on one side");
    }
    after_text ? SetEnd(id, vocab) : SetBegin(id, vocab);
  }
  return Ok{};
}

// {"sep": ["[SEP]", 102], "cls": ["[CLS]", 101]}
Status ApplyBertProcessing(const Json& processor, Vocab* vocab) {
  const auto id_of = [&](const char* key) -> Result<int32_t> {
    const Json* pair = processor.Find(key);
    const JsonArray* list = pair ? pair->AsArray() : nullptr;
    return CheckedId(list && list->size() == 2 ? (*list)[1].AsUint() : std::nullopt, *vocab);
  };
  EW_TRY(const int32_t cls, id_of("cls"));
  EW_TRY(const int32_t sep, id_of("sep"));
  SetBegin(cls, vocab);
  SetEnd(sep, vocab);
  return Ok{};
}

}  // namespace

Status ApplyPostProcessor(const Json& root, Vocab* vocab) {
  for (const Json* step : Steps(root, "post_processor", "processors")) {
    const std::string_view type = Text(*step, "type");
    if (type == "TemplateProcessing") {
      EW_TRY(ApplyTemplate(*step, vocab));
    } else if (type == "BertProcessing" || type == "RobertaProcessing") {
      EW_TRY(ApplyBertProcessing(*step, vocab));
    } else if (type != "ByteLevel") {  // which only trims offsets
      return Unsupported("post_processor", TypeOf(*step));
    }
  }
  return Ok{};
}

}  // namespace edgewise
