#include "eval/windows.h"

#include <algorithm>
#include <array>
#include <utility>

#include "base/strings.h"

namespace edgewise {
namespace {

struct ConventionRow {
  TextConvention id;
  const char* name;
  uint32_t context;  // unless asked otherwise; 0: the trained one
};
constexpr std::array<ConventionRow, 3> kConventions = {{
    {TextConvention::kWhole, "A", 2048},
    {TextConvention::kLlamaCpp, "C", 512},
    {TextConvention::kDocuments, "documents", 0},
}};

const ConventionRow& Row(TextConvention convention) {
  return kConventions[static_cast<size_t>(convention)];
}

Result<uint32_t> ChooseContext(uint32_t trained, const TextOptions& options) {
  uint32_t context = options.context;
  if (context == 0) {
    const uint32_t usual = Row(options.convention).context;
    context = usual == 0 ? trained : std::min(usual, trained);
  }
  // Convention C scores nothing in a window of fewer than 4 tokens.
  const uint32_t least = options.convention == TextConvention::kLlamaCpp ? 4 : 2;
  if (context >= least && context <= trained) return context;
  return MakeError(Code::kInvalidArgument,
                   "windows of %u tokens cannot be scored: at least %u are needed, and the model "
                   "was trained for %u",
                   context, least, trained);
}

// The first `max_bytes` bytes, less a character that is cut in two.
std::string_view FirstBytes(std::string_view text, uint64_t max_bytes) {
  if (max_bytes == 0 || max_bytes >= text.size()) return text;
  size_t size = max_bytes;
  for (int back = 0; back < 3 && size > 0; ++back) {
    if ((static_cast<uint8_t>(text[size]) & 0xC0) != 0x80) break;
    --size;
  }
  return text.substr(0, size);
}

bool WantsBos(const Vocab& vocab) { return vocab.add_bos && vocab.bos; }

Status CutWhole(const Tokenizer& tokenizer, std::string_view text, const TextOptions& options,
                ScoredText* result) {
  EW_TRY(const std::vector<int32_t> ids, EncodeFromStart(tokenizer, text));
  const size_t context = result->context;
  const bool llama_cpp = options.convention == TextConvention::kLlamaCpp;
  for (size_t begin = 0; begin + context <= ids.size(); begin += context) {
    if (options.max_windows > 0 && result->windows.size() == options.max_windows) break;
    ScoredWindow window;
    const auto first = ids.begin() + static_cast<ptrdiff_t>(begin);
    window.tokens.assign(first, first + static_cast<ptrdiff_t>(context));
    if (llama_cpp) {
      // Predictions made at positions context/2 .. context-2 are about the tokens after them.
      window.first_target = static_cast<uint32_t>(context / 2 + 1);
      if (WantsBos(tokenizer.vocab())) window.tokens[0] = *tokenizer.vocab().bos;
    }
    result->windows.push_back(std::move(window));
  }
  if (result->windows.empty()) {
    return MakeError(Code::kInvalidArgument,
                     "the text has %zu tokens, too few for one window of %zu; give a longer text "
                     "or a smaller context",
                     ids.size(), context);
  }
  result->unused_tokens = ids.size() - result->windows.size() * context;
  return Ok{};
}

Status CutDocuments(const Tokenizer& tokenizer, std::string_view text, bool cut,
                    const TextOptions& options, ScoredText* result) {
  if (options.separator.empty()) {
    return Error{Code::kInvalidArgument, "the separator of documents is empty"};
  }
  std::vector<std::string_view> pieces = Split(text, options.separator);
  if (cut) {
    pieces.pop_back();
    ++result->skipped_documents;
  }
  for (const std::string_view piece : pieces) {
    if (options.max_windows > 0 && result->windows.size() == options.max_windows) break;
    const std::string_view document = Trim(piece);
    ScoredWindow window;
    if (document.size() > options.skip_bytes) {
      EW_TRY(window.tokens, EncodeFromStart(tokenizer, document));
    }
    if (window.tokens.size() < 2) {
      if (!document.empty()) ++result->skipped_documents;
      continue;
    }
    if (window.tokens.size() > result->context) {
      result->unused_tokens += window.tokens.size() - result->context;
      window.tokens.resize(result->context);
    }
    result->windows.push_back(std::move(window));
  }
  if (!result->windows.empty()) return Ok{};
  return MakeError(Code::kInvalidArgument,
                   "the text has no document of more than %llu bytes between the separators %s",
                   static_cast<unsigned long long>(options.skip_bytes),
                   Quote(options.separator).c_str());
}

}  // namespace

Result<std::vector<int32_t>> EncodeFromStart(const Tokenizer& tokenizer, std::string_view text) {
  EW_TRY(std::vector<int32_t> ids, tokenizer.Encode(text, {.add_special = false}));
  if (WantsBos(tokenizer.vocab())) ids.insert(ids.begin(), *tokenizer.vocab().bos);
  return ids;
}

const char* ConventionName(TextConvention convention) { return Row(convention).name; }

Result<TextConvention> ParseConvention(std::string_view name) {
  for (const ConventionRow& row : kConventions) {
    if (name == row.name) return row.id;
  }
  return MakeError(Code::kInvalidArgument,
                   "unknown convention %s; there are A (whole text, Hugging Face), C (llama.cpp) "
                   "and documents",
                   Quote(name).c_str());
}

Result<ScoredText> CutText(const Tokenizer& tokenizer, uint32_t trained_context,
                           std::string_view text, const TextOptions& options) {
  ScoredText result;
  EW_TRY(result.context, ChooseContext(trained_context, options));
  result.convention = ConventionName(options.convention);
  const std::string_view used = FirstBytes(text, options.max_bytes);
  result.text_bytes = used.size();
  if (options.convention == TextConvention::kDocuments) {
    EW_TRY(CutDocuments(tokenizer, used, used.size() < text.size(), options, &result));
  } else {
    EW_TRY(CutWhole(tokenizer, used, options, &result));
  }
  for (const ScoredWindow& window : result.windows) result.tokens += window.targets();
  return result;
}

}  // namespace edgewise
