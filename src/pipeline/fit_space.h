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

}  // namespace edgewise
