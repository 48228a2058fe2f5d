// edgewise run: continue a prompt, or answer one message through the chat template.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <memory>
#include <numeric>

#include "base/strings.h"
#include "cli/command.h"
#include "cli/generation_flags.h"
#include "cli/output.h"
#include "cli/terminal.h"

namespace edgewise::cli {
namespace {

struct RunFlags {
  GenerationFlags generation;
  std::string prompt, file, system;
  bool chat = false;
};

Result<std::vector<int32_t>> PromptIds(const RunFlags& flags, const std::string& prompt,
                                       const Engine& engine) {
  if (!flags.chat && flags.system.empty()) return engine.tokenizer().Encode(prompt);
  Json messages{JsonArray()};
  if (!flags.system.empty())
    messages.Append(Json().Set("role", "system").Set("content", flags.system));
  messages.Append(Json().Set("role", "user").Set("content", prompt));
  return engine.EncodeChat(messages);
}

// Remarks for people: why it ended, and how fast it was.
void PrintSpeed(const Generation& generation, size_t prompt_tokens) {
  const double decode =
      std::accumulate(generation.token_seconds.begin(), generation.token_seconds.end(), 0.0);
  std::fprintf(stderr, "\n[%s; prompt %zu tokens in %s, %zu tokens generated",
               StopReasonName(generation.reason), prompt_tokens,
               FormatSeconds(generation.prefill_seconds).c_str(), generation.ids.size());
  if (decode > 0) {
    std::fprintf(stderr, " at %.1f tokens/s",
                 static_cast<double>(generation.token_seconds.size()) / decode);
  }
  if (generation.drafted > 0) {
    std::fprintf(stderr, "; %llu of %llu guesses right",
                 static_cast<unsigned long long>(generation.accepted),
                 static_cast<unsigned long long>(generation.drafted));
  }
  std::fputs("]\n", stderr);
}

Status PrintResult(const std::string& prompt, size_t prompt_tokens, const Generation& generation) {
  const double decode =
      std::accumulate(generation.token_seconds.begin(), generation.token_seconds.end(), 0.0);
  Json ids{JsonArray()};
  for (const int32_t id : generation.ids) ids.Append(id);
  Json object;
  object.Set("prompt", prompt).Set("text", generation.text).Set("ids", ids);
  object.Set("stop_reason", StopReasonName(generation.reason))
      .Set("prompt_tokens", uint64_t{prompt_tokens});
  object.Set("prefill_seconds", generation.prefill_seconds).Set("decode_seconds", decode);
  object.Set("drafted", generation.drafted).Set("accepted", generation.accepted);
  return PrintJson("run", object);
}

Status RunGeneration(RunFlags& flags, const Common& common) {
  EW_TRY(flags.generation.Finish());
  std::string prompt = flags.prompt;
  if (!flags.file.empty()) {
    EW_TRY(prompt, ReadText(flags.file));
  }
  EW_TRY(const std::unique_ptr<Engine> engine, flags.generation.LoadEngine(common));
  EW_TRY(Session session, flags.generation.MakeSession(engine.get()));
  EW_TRY(const std::vector<int32_t> ids, PromptIds(flags, prompt, *engine));
  EW_TRY(session.Append(ids));
  EW_TRY(const std::unique_ptr<Drafter> drafter,
         flags.generation.MakeDrafter(common, engine.get(), session));
  flags.generation.generate.drafter = drafter.get();
  const bool plain = !flags.chat && flags.system.empty();
  if (!common.json && plain) EW_TRY(Print(prompt));
  Status output = Ok{};
  const InterruptScope interrupt;
  EW_TRY(const Generation generation,
         session.Generate(flags.generation.generate, [&](std::string_view text) {
           if (!common.json) output = Print(text);
           return output && !InterruptScope::Interrupted();
         }));
  EW_TRY(std::move(output));
  if (common.json) return PrintResult(prompt, ids.size(), generation);
  if (!common.quiet) PrintSpeed(generation, ids.size());
  if (InterruptScope::Interrupted()) return Error{Code::kCancelled, "interrupted"};
  return Ok{};
}

}  // namespace

Runner AddRun(CLI::App& app, const Common& common) {
  auto flags = std::make_shared<RunFlags>();
  CLI::Option* prompt =
      app.add_option("--prompt", flags->prompt, "Text to continue (default: empty)");
  app.add_option("--file", flags->file, "Read the prompt from this file; - is standard input")
      ->excludes(prompt);
  app.add_option("--system", flags->system,
                 "System message; the prompt becomes a user message (needs a chat template)");
  app.add_flag("--chat", flags->chat, "Put the prompt into the model's chat template");
  flags->generation.Add(app);
  return [flags, &common] { return RunGeneration(*flags, common); };
}

}  // namespace edgewise::cli
