// What the verbs that write a model have in common: flags, and the summary of what was written.
#pragma once

#include <string>

#include "base/cost.h"
#include "base/result.h"
#include "cli/command.h"
#include "pipeline/convert.h"

namespace edgewise::cli {

// "about 20 s, peak memory about 33.0 MiB"
std::string EstimateText(const Cost& estimate);

// Registers --force, --dry-run and --verbose.
void AddOutputFlags(CLI::App& app, bool* force, bool* dry_run, bool* verbose);

// Prints what was written, or would be: with `verbose` or `dry_run` a line for each tensor.
Status PrintSummary(const char* verb, const ConvertSummary& summary, bool dry_run, bool verbose,
                    const Common& common);

}  // namespace edgewise::cli
