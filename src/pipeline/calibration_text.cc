#include "pipeline/calibration_text.h"

#include <memory>
#include <utility>

#include "base/file.h"
#include "engine/vocab_metadata.h"
#include "eval/windows.h"

namespace edgewise {
namespace {

constexpr uint64_t kMaxTextBytes = uint64_t{1} << 30;

}  // namespace

Result<TokenSequences> ReadCalibrationText(const Checkpoint& checkpoint,
                                           const std::string& tokenizer_path,
                                           const CalibrationText& source) {
  EW_TRY(const std::string text, ReadFile(source.path, kMaxTextBytes));
  EW_TRY(Vocab vocab, LoadVocab(checkpoint, tokenizer_path));
  EW_TRY(const auto tokenizer, Tokenizer::Create(std::move(vocab)));
  TextOptions options;
  const bool documents = text.find(options.separator) != std::string::npos;
  options.convention = documents ? TextConvention::kDocuments : TextConvention::kLlamaCpp;
  options.context = source.context;
  EW_TRY(ScoredText cut,
         CutText(*tokenizer, checkpoint.spec().context_length, text, options).In(source.path));
  TokenSequences sequences;
  uint64_t tokens = 0;
  for (ScoredWindow& window : cut.windows) {
    if (source.max_tokens > 0 && tokens >= source.max_tokens) break;
    tokens += window.tokens.size();
    sequences.push_back(std::move(window.tokens));
  }
  return sequences;
}

}  // namespace edgewise
