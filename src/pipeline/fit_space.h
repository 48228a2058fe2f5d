// The candidates of `edgewise fit`: recipes, so that whatever a pass can do is a row here and no
// code.
#pragma once

#include <string>
#include <vector>

#include "base/result.h"
#include "pipeline/fit_search.h"

namespace edgewise {

// Returns the candidates in the order of the table, with name and passes, and one that fills
// `file_budget` (bytes; 0: none). `names`: only these; empty: all. Errors: kInvalidArgument (an
// unknown name; the message lists the known).
Result<std::vector<FitCandidate>> FitSpace(const std::vector<std::string>& names,
                                           uint64_t file_budget);

// Written quickly, and any row of 32 weights takes it.
inline constexpr const char* kReferenceFormat = "q4_0";
// A candidate of the structure of `candidate`, whatever is left of it, in kReferenceFormat: as
// large in each of its tensors, made without a text.
FitCandidate ReferenceOf(const FitCandidate& candidate);

}  // namespace edgewise
