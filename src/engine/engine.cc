#include "engine/engine.h"

#include <utility>

#include "base/process.h"
#include "base/strings.h"
#include "engine/vocab_metadata.h"
#include "kernels/kernels.h"
#include "text/prompt.h"

namespace edgewise {
namespace {

constexpr int kMaxThreads = 1024;

// Every id that the tokenizer gives must have a row in the embedding.
Status CheckVocabFits(const Tokenizer& tokenizer, const ModelSpec& spec) {
  if (static_cast<uint32_t>(tokenizer.size()) <= spec.vocab_size) return Ok{};
  return MakeError(Code::kBadData,
                   "the tokenizer has %d tokens but the model only %u: it belongs to another model",
                   tokenizer.size(), spec.vocab_size);
}

}  // namespace

Result<std::unique_ptr<Engine>> Engine::Load(const std::string& path,
                                             const EngineOptions& options) {
  if (const char* problem = kernels::CheckIsa()) return Error{Code::kInvalidArgument, problem};
  if (options.threads < 0 || options.threads > kMaxThreads) {
    return MakeError(Code::kInvalidArgument, "%d threads; give 1 to %d, or 0 for all CPUs",
                     options.threads, kMaxThreads);
  }
  const double start = NowSeconds();
  EW_TRY(Checkpoint checkpoint, Checkpoint::Open(path));
  EW_TRY(Vocab vocab, LoadVocab(checkpoint, options.tokenizer_path));

  std::unique_ptr<Engine> engine(new Engine);
  if (!vocab.chat_template.empty()) {
    auto parsed = ChatTemplate::Parse(vocab.chat_template);
    if (parsed) {
      engine->chat_template_ = *std::move(parsed);
    } else {
      engine->chat_template_error_ =
          "the model's chat template cannot be used: " + parsed.error().message;
    }
  }
  EW_TRY(engine->tokenizer_, Tokenizer::Create(std::move(vocab)).In(path));
  EW_TRY(CheckVocabFits(*engine->tokenizer_, checkpoint.spec()).In(path));
  const int threads = options.threads > 0 ? options.threads : ThreadPool::AvailableCpus();
  engine->pool_ = std::make_unique<ThreadPool>(threads);
  EW_TRY(engine->model_, Model::Load(std::move(checkpoint), engine->pool_.get()));
  engine->load_seconds_ = NowSeconds() - start;
  return engine;
}

Result<std::vector<int32_t>> Engine::EncodeChat(const Json& messages,
                                                bool add_generation_prompt) const {
  if (!chat_template_) {
    return Error{Code::kUnsupported, chat_template_error_.empty() ? "the model has no chat template"
                                                                  : chat_template_error_};
  }
  const Json context = ChatContext(tokenizer_->vocab(), messages, add_generation_prompt);
  EW_TRY(const std::vector<PromptPart> parts, chat_template_->Render(context));
  return EncodePrompt(*tokenizer_, parts);
}

}  // namespace edgewise
