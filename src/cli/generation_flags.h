// The flags that `run` and `chat` share: loading a model, sampling, the session.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "cli/command.h"
#include "engine/drafter.h"
#include "engine/engine.h"
#include "engine/session.h"

namespace edgewise::cli {

struct GenerationFlags {
  std::string model;
  std::string tokenizer;
  uint32_t context = 0;
  std::string kv_format = "f16";
  std::string draft;  // a model; empty: none
  bool prompt_lookup = false;
  GenerateOptions generate;
  std::vector<std::string> logit_bias;  // "ID=VALUE"

  void Add(CLI::App& app);
  // Fills generate.sampler.logit_bias. Errors: kInvalidArgument.
  Status Finish();
  Result<std::unique_ptr<Engine>> LoadEngine(const Common& common) const;
  Result<Session> MakeSession(Engine* engine) const;
  // The drafter that the flags ask for, null when they ask for none; for a session of `engine`.
  Result<std::unique_ptr<Drafter>> MakeDrafter(const Common& common, Engine* engine,
                                               const Session& session) const;
};

// Adds --kv.
void AddKvFlag(CLI::App& app, std::string* kv_format);
// Errors: kInvalidArgument (the choices).
Result<kernels::KvFormat> KvFormatFromName(const std::string& name);

// Adds the positional MODEL and --tokenizer.
void AddModelFlags(CLI::App& app, std::string* model, std::string* tokenizer);

// Reads a whole text file, or standard input for "-". Errors: as ReadFile.
Result<std::string> ReadText(const std::string& path);

// "end_of_text", "max_tokens", ...
const char* StopReasonName(StopReason reason);

}  // namespace edgewise::cli
