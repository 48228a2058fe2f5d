#include "text/tokenizer.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <functional>
#include <string>
#include <utility>

#include "base/strings.h"
#include "text/tokenizer_kinds.h"
#include "text/trie.h"
#include "text/unicode.h"

namespace edgewise {
namespace {

constexpr size_t kMaxTextBytes = 1u << 30;  // offsets and symbol numbers stay within 32 bits
constexpr size_t kMaxTokens = 1u << 26;

bool IsBlank(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

bool IsSpecial(TokenType type) {
  return type == TokenType::kControl || type == TokenType::kUserDefined ||
         type == TokenType::kUnknown;
}

Status CheckId(const Vocab& vocab, const char* name, int32_t id) {
  if (id >= 0 && static_cast<size_t>(id) < vocab.tokens.size()) return Ok{};
  return MakeError(Code::kBadData, "%s token id %d is out of range: the vocabulary has %zu tokens",
                   name, id, vocab.tokens.size());
}

Status CheckIds(const Vocab& vocab) {
  const std::pair<const char*, const std::optional<int32_t>*> named[] = {
      {"bos", &vocab.bos}, {"eos", &vocab.eos}, {"unk", &vocab.unk},  {"pad", &vocab.pad},
      {"sep", &vocab.sep}, {"cls", &vocab.cls}, {"mask", &vocab.mask}};
  for (const auto& [name, id] : named) {
    if (*id) EW_TRY(CheckId(vocab, name, **id));
  }
  for (const int32_t id : vocab.eog) EW_TRY(CheckId(vocab, "end-of-generation", id));
  for (const int32_t id : vocab.lstrip) EW_TRY(CheckId(vocab, "lstrip", id));
  for (const int32_t id : vocab.rstrip) EW_TRY(CheckId(vocab, "rstrip", id));
  return Ok{};
}

// The ids that add_bos and add_eos put around a text.
std::optional<int32_t> BeginId(const Vocab& vocab) {
  return vocab.kind == TokenizerKind::kWordPiece && vocab.cls ? vocab.cls : vocab.bos;
}
std::optional<int32_t> EndId(const Vocab& vocab) {
  return vocab.kind == TokenizerKind::kWordPiece && vocab.sep ? vocab.sep : vocab.eos;
}

Status CheckVocab(const Vocab& vocab) {
  const size_t count = vocab.tokens.size();
  if (count == 0) return MakeError(Code::kBadData, "the vocabulary has no tokens");
  if (count > kMaxTokens) {
    return MakeError(Code::kBadData, "the vocabulary has %zu tokens; at most %zu are accepted",
                     count, kMaxTokens);
  }
  if (vocab.types.size() != count) {
    return MakeError(Code::kBadData, "the vocabulary has %zu tokens but %zu token types", count,
                     vocab.types.size());
  }
  const bool scored = vocab.kind == TokenizerKind::kSpm || vocab.kind == TokenizerKind::kUnigram;
  if (scored && vocab.scores.size() != count) {
    return MakeError(Code::kBadData, "the vocabulary has %zu tokens but %zu scores", count,
                     vocab.scores.size());
  }
  for (size_t i = 0; scored && i < count; ++i) {
    if (std::isnan(vocab.scores[i]))
      return MakeError(Code::kBadData, "the score of token %zu is not a number", i);
  }
  for (size_t i = 0; i < count; ++i) {
    if (vocab.types[i] < TokenType::kNormal || vocab.types[i] > TokenType::kByte) {
      return MakeError(Code::kBadData, "token %zu has the unknown type %d", i,
                       static_cast<int>(vocab.types[i]));
    }
    if (vocab.types[i] == TokenType::kByte && !ParseByteToken(vocab.tokens[i])) {
      return MakeError(Code::kBadData,
                       "token %zu is a byte token but its text is %s, not like \"<0x0A>\"", i,
                       Quote(vocab.tokens[i]).c_str());
    }
  }
  EW_TRY(CheckIds(vocab));
  if (vocab.add_bos && !BeginId(vocab)) {
    return MakeError(Code::kBadData, "add_bos is set but the vocabulary has no bos token");
  }
  if (vocab.add_eos && !EndId(vocab)) {
    return MakeError(Code::kBadData, "add_eos is set but the vocabulary has no eos token");
  }
  return Ok{};
}

}  // namespace

std::string UnescapeSpaces(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  while (true) {
    const size_t mark = text.find(kSpaceMarkUtf8);
    out += text.substr(0, mark);
    if (mark == std::string_view::npos) return out;
    out += ' ';
    text.remove_prefix(mark + kSpaceMarkUtf8.size());
  }
}

std::optional<uint8_t> ParseByteToken(std::string_view text) {
  if (text.size() != 6 || text.substr(0, 3) != "<0x" || text[5] != '>') return std::nullopt;
  const auto digit = [](char c) {
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
                                  : -1;
  };
  const int high = digit(text[3]), low = digit(text[4]);
  if (high < 0 || low < 0) return std::nullopt;
  return static_cast<uint8_t>(high * 16 + low);
}

std::vector<int32_t> FindEndOfGeneration(const Vocab& vocab) {
  static constexpr std::string_view kTexts[] = {
      "</s>",
      "<eos>",
      "<|endoftext|>",
      "<|end_of_text|>",
      "<|eot_id|>",
      "<|eom_id|>",
      "<|im_end|>",
      "<|end|>",
      "<end_of_turn>",
      "<|return|>",
      "<|call|>",
      "<EOT>",
      "<|EOT|>",
      "[EOS]",
      "[EOT]",
      "<end_of_utterance>",
      "<\xEF\xBD\x9C"
      "end\xE2\x96\x81of\xE2\x96\x81sentence\xEF\xBD\x9C>",  // DeepSeek
  };
  std::vector<int32_t> ids;
  if (vocab.eos) ids.push_back(*vocab.eos);
  std::optional<int32_t> end, returned, call;
  for (size_t i = 0; i < vocab.tokens.size(); ++i) {
    const auto id = static_cast<int32_t>(i);
    if (!IsSpecial(vocab.types[i]) || id == vocab.eos) continue;
    const std::string& text = vocab.tokens[i];
    if (std::find(std::begin(kTexts), std::end(kTexts), text) == std::end(kTexts)) continue;
    ids.push_back(id);
    if (text == "<|end|>") end = id;
    if (text == "<|return|>") returned = id;
    if (text == "<|call|>") call = id;
  }
  // Harmony's <|end|> only closes one message of several.
  if (end && returned && call) std::erase(ids, *end);
  std::sort(ids.begin(), ids.end());
  return ids;
}

// Look-ups derived from the vocabulary, whose strings it views.
struct Tokenizer::Index {
  // Open addressing by the token's text; slots hold 1 + id.
  std::vector<int32_t> slots;
  Trie user_defined;
  Trie special;  // the user-defined ones too
  std::array<int32_t, 256> byte_ids;
  std::vector<int32_t> eog;
  std::vector<bool> lstrip, rstrip;

  explicit Index(const Vocab& vocab);
};

Tokenizer::Index::Index(const Vocab& vocab)
    : lstrip(vocab.tokens.size()), rstrip(vocab.tokens.size()) {
  size_t capacity = 16;
  while (capacity < vocab.tokens.size() * 2) capacity *= 2;
  slots.resize(capacity);
  byte_ids.fill(-1);
  std::vector<std::pair<std::string_view, int32_t>> user, all;
  for (size_t i = 0; i < vocab.tokens.size(); ++i) {
    const auto id = static_cast<int32_t>(i);
    const std::string& text = vocab.tokens[i];
    size_t slot = std::hash<std::string_view>{}(text) & (capacity - 1);
    while (slots[slot] != 0 && vocab.tokens[slots[slot] - 1] != text)
      slot = (slot + 1) & (capacity - 1);
    slots[slot] = id + 1;  // the last of equal texts counts
    if (IsSpecial(vocab.types[i])) all.emplace_back(text, id);
    if (vocab.types[i] == TokenType::kUserDefined) user.emplace_back(text, id);
    if (vocab.types[i] == TokenType::kByte) byte_ids[*ParseByteToken(text)] = id;
  }
  user_defined = Trie(std::move(user));
  special = Trie(std::move(all));
  eog = vocab.eog;
  if (vocab.eos) eog.push_back(*vocab.eos);
  std::sort(eog.begin(), eog.end());
  for (const int32_t id : vocab.lstrip) lstrip[id] = true;
  for (const int32_t id : vocab.rstrip) rstrip[id] = true;
}

Tokenizer::Tokenizer(Vocab vocab)
    : vocab_(std::move(vocab)), index_(std::make_unique<const Index>(vocab_)) {}

Tokenizer::~Tokenizer() = default;

Result<std::unique_ptr<Tokenizer>> Tokenizer::Create(Vocab vocab) {
  EW_TRY(CheckVocab(vocab));
  switch (vocab.kind) {
    case TokenizerKind::kSpm:
      return CreateSpm(std::move(vocab));
    case TokenizerKind::kBpe:
      return CreateBpe(std::move(vocab));
    case TokenizerKind::kWordPiece:
      return CreateWordPiece(std::move(vocab));
    case TokenizerKind::kUnigram:
      return CreateUnigram(std::move(vocab));
  }
  return MakeError(Code::kUnsupported, "tokenizer kind %d is unknown",
                   static_cast<int>(vocab.kind));
}

std::optional<int32_t> Tokenizer::Find(std::string_view token) const {
  const std::vector<int32_t>& slots = index_->slots;
  size_t slot = std::hash<std::string_view>{}(token) & (slots.size() - 1);
  for (; slots[slot] != 0; slot = (slot + 1) & (slots.size() - 1)) {
    if (vocab_.tokens[slots[slot] - 1] == token) return slots[slot] - 1;
  }
  return std::nullopt;
}

bool Tokenizer::IsEndOfGeneration(int32_t id) const {
  return std::binary_search(index_->eog.begin(), index_->eog.end(), id);
}

Status Tokenizer::AppendUnknown(std::string_view character, std::vector<int32_t>* ids) const {
  const auto byte_id = [&](char c) { return index_->byte_ids[static_cast<uint8_t>(c)]; };
  if (std::all_of(character.begin(), character.end(), [&](char c) { return byte_id(c) >= 0; })) {
    for (const char c : character) ids->push_back(byte_id(c));
    return Ok{};
  }
  if (!vocab_.unk) {
    return MakeError(Code::kInvalidArgument,
                     "%s has no token, and the vocabulary has no unknown token to stand for it",
                     Quote(character).c_str());
  }
  if (ids->empty() || ids->back() != *vocab_.unk) ids->push_back(*vocab_.unk);
  return Ok{};
}

Status Tokenizer::EncodeWithSpecials(std::string_view text, const EncodeOptions& options,
                                     std::vector<int32_t>* ids) const {
  const Trie& trie = options.parse_special ? index_->special : index_->user_defined;
  size_t begin = 0;  // of the text since the last special token
  const auto flush = [&](size_t end) -> Status {
    if (begin == end) return Ok{};
    // A stretch of text starts anew: the one before it, if any, was a special token.
    const bool first = begin > 0 || !options.continues;
    return EncodeText(text.substr(begin, end - begin), first, ids);
  };
  for (size_t i = 0; i < text.size() && !trie.empty();) {
    const Trie::Match match = trie.StartsWith(static_cast<uint8_t>(text[i]))
                                  ? trie.Longest(text.substr(i))
                                  : Trie::Match{};
    if (match.length == 0) {
      ++i;
      continue;
    }
    size_t end = i;
    while (index_->lstrip[match.value] && end > begin && IsBlank(text[end - 1])) --end;
    EW_TRY(flush(end));
    ids->push_back(match.value);
    i += match.length;
    while (index_->rstrip[match.value] && i < text.size() && IsBlank(text[i])) ++i;
    begin = i;
  }
  return flush(text.size());
}

Result<std::vector<int32_t>> Tokenizer::Encode(std::string_view text,
                                               const EncodeOptions& options) const {
  if (text.size() > kMaxTextBytes) {
    return MakeError(Code::kInvalidArgument,
                     "the text has %zu bytes; encode at most 1 GiB at a time", text.size());
  }
  std::vector<int32_t> ids;
  if (options.add_special && vocab_.add_bos) ids.push_back(*BeginId(vocab_));
  EW_TRY(EncodeWithSpecials(text, options, &ids));
  if (options.add_special && vocab_.add_eos) ids.push_back(*EndId(vocab_));
  return ids;
}

std::string Tokenizer::PieceBytes(int32_t id, bool keep_special) const {
  EW_CHECK(id >= 0 && id < size());
  switch (type(id)) {
    case TokenType::kUnknown:
    case TokenType::kControl:
      return keep_special ? vocab_.tokens[id] : std::string();
    case TokenType::kUserDefined:
      return vocab_.tokens[id];
    case TokenType::kByte:
      return std::string(1, static_cast<char>(*ParseByteToken(vocab_.tokens[id])));
    default:
      return DecodePiece(id);
  }
}

Status CheckSameVocabulary(const Tokenizer& first, const Tokenizer& second) {
  constexpr const char* kAdvice =
      "take two models of one family, or name the tokenizer that both were trained with";
  for (int32_t id = 0; id < std::min(first.size(), second.size()); ++id) {
    const std::string& a = first.vocab().tokens[static_cast<size_t>(id)];
    const std::string& b = second.vocab().tokens[static_cast<size_t>(id)];
    if (a == b) continue;
    return MakeError(Code::kInvalidArgument,
                     "the two models need one vocabulary, but token %d is %s in the first and %s "
                     "in the second; %s",
                     id, Quote(a).c_str(), Quote(b).c_str(), kAdvice);
  }
  if (first.size() == second.size()) return Ok{};
  return MakeError(Code::kInvalidArgument,
                   "the two models need one vocabulary, but the first has %d tokens and the second "
                   "%d; %s",
                   first.size(), second.size(), kAdvice);
}

Result<std::string> Tokenizer::Decode(std::span<const int32_t> ids, bool keep_special) const {
  bool at_start = vocab_.kind == TokenizerKind::kWordPiece ||
                  (vocab_.kind != TokenizerKind::kBpe && vocab_.add_space_prefix);
  std::string text;
  for (const int32_t id : ids) {
    if (id < 0 || id >= size()) {
      return MakeError(Code::kInvalidArgument,
                       "token id %d is out of range: the vocabulary has %d tokens", id, size());
    }
    std::string piece = PieceBytes(id, keep_special);
    if (at_start && !IsSpecial(type(id)) && !piece.empty()) {
      if (piece[0] == ' ') piece.erase(0, 1);
      at_start = false;
    }
    text += piece;
  }
  return text;
}

namespace {

// Returns how many bytes at the end of `text` may still become a well-formed character.
size_t OpenBytes(std::string_view text) {
  for (size_t length = 1; length <= 3 && length <= text.size(); ++length) {
    const auto* p = reinterpret_cast<const uint8_t*>(text.data()) + text.size() - length;
    if ((p[0] & 0xC0) == 0x80) continue;  // a continuation byte: look further back
    const size_t whole = p[0] >= 0xC2 && p[0] < 0xE0   ? 2
                         : p[0] >= 0xE0 && p[0] < 0xF0 ? 3
                         : p[0] >= 0xF0 && p[0] < 0xF5 ? 4
                                                       : 0;
    if (length >= whole) return 0;
    // Some second bytes would make an overlong form, a surrogate or too high a code point.
    if (length > 1 && ((p[0] == 0xE0 && p[1] < 0xA0) || (p[0] == 0xED && p[1] > 0x9F) ||
                       (p[0] == 0xF0 && p[1] < 0x90) || (p[0] == 0xF4 && p[1] > 0x8F))) {
      return 0;
    }
    return length;
  }
  return 0;
}

}  // namespace

std::string StreamDecoder::Push(int32_t id) {
  held_ += tokenizer_.PieceBytes(id, keep_special_);
  const size_t ready = held_.size() - OpenBytes(held_);
  std::string text = ReplaceInvalidUtf8(std::string_view(held_).substr(0, ready));
  held_.erase(0, ready);
  return text;
}

std::string StreamDecoder::Finish() {
  return ReplaceInvalidUtf8(std::exchange(held_, std::string()));
}

}  // namespace edgewise
