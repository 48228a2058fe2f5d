// edgewise chat: a conversation on the terminal. Ctrl-C stops an answer; Ctrl-D or /exit ends.
#include <unistd.h>
#include <CLI/CLI.hpp>

#include <cstdio>
#include <iostream>
#include <memory>
#include <string>

#include "base/strings.h"
#include "cli/command.h"
#include "cli/generation_flags.h"
#include "cli/output.h"
#include "cli/terminal.h"

namespace edgewise::cli {
namespace {

struct ChatFlags {
  GenerationFlags generation;
  std::string system;
};

Status Answer(const ChatFlags& flags, const Common& common, Json* messages, Engine* engine,
              Session* session) {
  // Templates may rewrite earlier turns: the session keeps what is still the same.
  EW_TRY(const std::vector<int32_t> ids, engine->EncodeChat(*messages));
  EW_TRY(session->Replace(ids));
  Status output = Ok{};
  const InterruptScope interrupt;
  EW_TRY(const Generation generation,
         session->Generate(flags.generation.generate, [&](std::string_view text) {
           if (!common.json) output = Print(text);
           return output && !InterruptScope::Interrupted();
         }));
  EW_TRY(std::move(output));
  messages->Append(Json().Set("role", "assistant").Set("content", generation.text));
  if (common.json) {
    return PrintJson(
        "chat",
        Json().Set("text", generation.text).Set("stop_reason", StopReasonName(generation.reason)));
  }
  EW_TRY(Print("\n"));
  if (generation.reason == StopReason::kContextFull && !common.quiet) {
    std::fputs("[the context is full; /clear starts a new conversation]\n", stderr);
  }
  return Ok{};
}

Json FirstMessages(const ChatFlags& flags) {
  Json messages{JsonArray()};
  if (!flags.system.empty())
    messages.Append(Json().Set("role", "system").Set("content", flags.system));
  return messages;
}

Status RunChat(ChatFlags& flags, const Common& common) {
  EW_TRY(flags.generation.Finish());
  EW_TRY(const std::unique_ptr<Engine> engine, flags.generation.LoadEngine(common));
  if (!engine->chat_template()) {
    const std::string& why = engine->chat_template_error();
    return MakeError(Code::kUnsupported, "%s: %s; use `edgewise run` to continue a plain text",
                     flags.generation.model.c_str(),
                     why.empty() ? "the model has no chat template" : why.c_str());
  }
  EW_TRY(Session session, flags.generation.MakeSession(engine.get()));
  EW_TRY(const std::unique_ptr<Drafter> drafter,
         flags.generation.MakeDrafter(common, engine.get(), session));
  flags.generation.generate.drafter = drafter.get();
  Json messages = FirstMessages(flags);
  const bool terminal = ::isatty(STDIN_FILENO) != 0 && !common.quiet && !common.json;
  if (terminal) std::fputs("Ctrl-C stops an answer, /clear starts over, Ctrl-D ends.\n", stderr);
  std::string line;
  for (;;) {
    if (terminal) std::fputs("> ", stderr);
    if (!std::getline(std::cin, line) || line == "/exit") break;
    if (Trim(line).empty()) continue;
    if (line == "/clear") {
      session.Clear();
      messages = FirstMessages(flags);
      continue;
    }
    messages.Append(Json().Set("role", "user").Set("content", line));
    EW_TRY(Answer(flags, common, &messages, engine.get(), &session));
  }
  return Ok{};
}

}  // namespace

Runner AddChat(CLI::App& app, const Common& common) {
  auto flags = std::make_shared<ChatFlags>();
  app.add_option("--system", flags->system, "System message that opens the conversation");
  flags->generation.Add(app);
  return [flags, &common] { return RunChat(*flags, common); };
}

}  // namespace edgewise::cli
