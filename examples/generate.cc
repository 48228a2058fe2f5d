// Loads a model and continues a prompt: usage: generate MODEL "Once upon a time"
#include <cstdio>

#include "engine/engine.h"
#include "engine/session.h"

namespace {

edgewise::Status Generate(const char* path, const char* prompt) {
  EW_TRY(const auto engine, edgewise::Engine::Load(path));
  EW_TRY(auto session, edgewise::Session::Create(engine.get(), {}));
  EW_TRY(const auto ids, engine->tokenizer().Encode(prompt));
  EW_TRY(session.Append(ids));

  edgewise::GenerateOptions options;
  options.max_tokens = 60;
  options.sampler.seed = 1;
  std::fputs(prompt, stdout);
  EW_TRY(session.Generate(options, [](std::string_view text) {
    std::fwrite(text.data(), 1, text.size(), stdout);
    return std::fflush(stdout) == 0;  // false stops the generation
  }));
  std::fputs("\n", stdout);
  return edgewise::Ok{};
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) {
    std::fprintf(stderr, "usage: %s MODEL PROMPT\n", argv[0]);
    return 2;
  }
  if (const auto status = Generate(argv[1], argv[2]); !status) {
    std::fprintf(stderr, "%s\n", status.error().message.c_str());
    return 1;
  }
  return 0;
}
