// Compare: quantizes one model to several formats and measures each against the original: size,
// divergence, speed, memory.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/progress.h"
#include "base/result.h"
#include "engine/engine.h"
#include "eval/latency.h"
#include "eval/report.h"
#include "eval/windows.h"

namespace edgewise {

struct CompareOptions {
  std::vector<std::string> formats = {"q8_0",   "q6_k", "q5_k_m", "q4_k_m",
                                      "iq4_xs", "q4_0", "q3_k_m", "q2_k"};
  std::vector<std::string> added;  // model files to measure beside them, named by their stems
  std::string
      folder;  // where the GGUF files go; must exist. Existing files of the same names are replaced
  std::string tokenizer_path;  // as in ConvertOptions
  std::string text;            // to measure on; must not be empty
  std::string text_source;     // in words, for the report: a path, or how the text was sampled
  TextOptions windows;         // how the text is scored
  LatencyOptions latency;
  int threads = 0;  // 0: all CPUs
};

// Runs everything and returns the report's data; the caller adds title, commands and notes.
// Errors: those of Convert, Quantize, Engine::Load, MeasureKl and MeasureLatency; kCancelled.
Result<ReportData> Compare(const std::string& in_path, const CompareOptions& options,
                           Progress* progress);

// Samples documents from the model itself (temperature 1, no truncation of the distribution, from
// BOS) until `tokens` tokens are there, joined by `separator`. Such text follows the model's own
// distribution, so the mean divergence on it estimates the divergence between the two models.
// Errors: kUnsupported (no BOS token), those of Session::Generate; kCancelled.
Result<std::string> SampleText(Engine* engine, uint64_t tokens, uint64_t seed,
                               const std::string& separator, Progress* progress);

}  // namespace edgewise
