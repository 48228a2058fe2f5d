// What a fit says: one table for terminals and pages, JSON, and a page.
#pragma once

#include <string>
#include <vector>

#include "base/json.h"
#include "pipeline/fit.h"

namespace edgewise {

// "file 2 MiB, p99 50 ms": the limits of a budget.
std::string BudgetText(const FitBudget& budget);

// The dense candidate that the sparse one at `position` is compared with, on the text of its last
// round, in words; empty for a dense one.
std::string DenseAlternativeText(const std::vector<FitCandidate>& candidates, size_t position);

// The head, then a row for each candidate that was measured, from the largest file to the smallest;
// with `planned` instead all with their predicted figures.
std::vector<std::vector<std::string>> FitTable(const FitSummary& summary, bool planned);

// The candidates that fell out before they were run, and why: {name, reason}.
std::vector<std::vector<std::string>> FitDropouts(const FitSummary& summary);

// Returns one self-contained page; all text is escaped.
std::string FitHtml(const FitSummary& summary);

// The members of `edgewise fit --json`.
Json ToJson(const FitSummary& summary);

}  // namespace edgewise
