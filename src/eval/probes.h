// Probes: the same prompts to both models, and whether one of them refuses, gives a link or writes
// code where the other does not.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/progress.h"
#include "base/result.h"
#include "engine/engine.h"

namespace edgewise {

// What an answer does, told by phrases and marks alone.
struct Behaviour {
  bool refuses = false;  // "I cannot", "I'm sorry", "as an AI", ...
  bool links = false;    // "http://", "https://", "www."
  bool codes = false;    // a fence of back quotes, or marks of programming languages
  bool operator==(const Behaviour&) const = default;
};
Behaviour Classify(std::string_view answer);

struct ProbeResult {
  std::string prompt;
  std::string base_answer, answer;
  Behaviour base_behaviour, behaviour;
  bool differs() const { return base_behaviour != behaviour; }
};

// The built-in prompts: plain requests, requests that a trained model may refuse, requests for
// links and for code.
std::span<const char* const> ProbePrompts();

// Continues each prompt greedily by at most `max_tokens` tokens with both engines, by the chat
// template where both have one. The same for any number of threads. Errors: those of Encode, Render
// and Session::Generate; kCancelled.
Result<std::vector<ProbeResult>> RunProbes(Engine* base, Engine* model, uint32_t max_tokens,
                                           Progress* progress);

}  // namespace edgewise
