// Reproduce: makes a compressed file again from the recipe in its metadata, and compares.
#pragma once

#include <string>
#include <vector>

#include "base/json.h"
#include "base/progress.h"
#include "base/result.h"

namespace edgewise {

struct ReproduceOptions {
  // Where the inputs are; empty: under their names beside the file.
  std::string model, tokenizer, calibration, evaluation;
  std::string recipe_path;  // a recipe that names them instead
  std::string output;       // where to make the file again; kept only where it is named
  int threads = 0;          // 0: all CPUs
  bool overwrite = false;   // the output
};

struct ReproduceSummary {
  bool equal = false;
  // In words: metadata keys and tensors that are not the same, at most a few of each.
  std::vector<std::string> differences;
  double seconds = 0;
};

// Runs the recipe of the GGUF `path` on inputs with the same digests. Errors: kInvalidArgument (no
// file of `edgewise compress`; made by another version or with other kernels; an input is another
// one), those of RecipeFromJson and Compress.
Result<ReproduceSummary> Reproduce(const std::string& path, const ReproduceOptions& options,
                                   Progress* progress);

}  // namespace edgewise
