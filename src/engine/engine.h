// Engine: a model with its tokenizer and chat template, ready to make sessions.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "base/result.h"
#include "base/thread_pool.h"
#include "model/model.h"
#include "text/chat_template.h"
#include "text/tokenizer.h"

namespace edgewise {

struct EngineOptions {
  int threads = 0;             // 0: ThreadPool::AvailableCpus()
  std::string tokenizer_path;  // for formats that keep it apart; empty: look beside the model
};

// Immutable but for the pool, which one session uses at a time.
class Engine {
 public:
  // Errors: those of Checkpoint::Open, Model::Load, LoadVocab and Tokenizer::Create.
  static Result<std::unique_ptr<Engine>> Load(const std::string& path,
                                              const EngineOptions& options = {});

  const Model& model() const { return *model_; }
  const Tokenizer& tokenizer() const { return *tokenizer_; }
  // Null when the model has none or it is outside our Jinja subset (chat_template_error says
  // which).
  const ChatTemplate* chat_template() const { return chat_template_ ? &*chat_template_ : nullptr; }
  const std::string& chat_template_error() const { return chat_template_error_; }
  ThreadPool& pool() { return *pool_; }
  double load_seconds() const { return load_seconds_; }

  // Returns the ids of a conversation rendered by the chat template; text of the messages never
  // becomes control tokens. `messages`: array of {"role", "content"}. Errors: kUnsupported (no
  // template), those of Render and Encode.
  Result<std::vector<int32_t>> EncodeChat(const Json& messages,
                                          bool add_generation_prompt = true) const;

 private:
  Engine() = default;
  std::unique_ptr<Model> model_;
  std::unique_ptr<Tokenizer> tokenizer_;
  std::optional<ChatTemplate> chat_template_;
  std::string chat_template_error_;
  std::unique_ptr<ThreadPool> pool_;
  double load_seconds_ = 0;
};

}  // namespace edgewise
