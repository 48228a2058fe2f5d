// The search of `edgewise fit` on what is known of its candidates: who goes on, who is best, who
// meets the budget. It measures nothing.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/json.h"

namespace edgewise {

// Limits of what a model may take; 0: none.
struct FitBudget {
  uint64_t memory_bytes = 0;  // resident at the peak while running
  uint64_t file_bytes = 0;
  double p99_ms = 0;  // of a decode step
};

// What running a model takes, predicted or measured.
struct FitFigures {
  double step_ms = 0;  // median time of a decode step
  double p99_ms = 0;
  uint64_t memory_bytes = 0;
  double tokens_per_s() const { return 1e3 / step_ms; }
};

// Divergence from the original on the first windows of the evaluation text.
struct FitKl {
  double mean = 0;  // nats per position
  double std_error = 0;
  double top1_agreement = 0;
  uint64_t tokens = 0;  // scored positions
};

struct FitCandidate {
  std::string name;
  Json passes;              // of its recipe, but for eval
  bool calibrated = false;  // they read the calibration text
  bool sparse = false;      // some weights are left out
  std::string left_out;     // why it was not tried; empty: it was
  // Of the file with its quality card, exact or, where formats are chosen for a size, at most;
  // 0: cannot be made.
  uint64_t file_bytes = 0;
  bool formats_open = false;  // chosen when it is made
  FitFigures predicted;
  std::vector<FitKl> kl;  // of each round that it was in
  std::optional<FitFigures> measured;
};

// How far a prediction may be off before it decides that a candidate is not tried.
inline constexpr double kFitTolerance = 0.15;

// Windows of the evaluation text for each round: twice as many each time, all of them in the last,
// for so many rounds that halving leaves about four of `candidates`.
std::vector<uint32_t> RoundWindows(size_t candidates, uint32_t windows);

using Objectives = std::vector<double>;  // less is better in each; of equal length

// The positions in `points` of those that no other point is as good as everywhere and better
// somewhere, in order.
std::vector<size_t> ParetoFront(std::span<const Objectives> points);

// The positions of `count` points, in order: fronts that the ones before leave, and of the front
// that is cut first the best in each objective, then those in the emptiest places (after NSGA-II,
// Deb et al. 2002); ties by position.
std::vector<size_t> KeepBest(std::span<const Objectives> points, size_t count);

// Of `among`, positions in `candidates`: the dense candidate of at most the bytes of `sparse` with
// the lowest KL in `round`; where `round` is empty, with the most bytes. Empty: none is as small.
std::optional<size_t> DenseAlternative(std::span<const FitCandidate> candidates,
                                       std::span<const size_t> among, size_t sparse,
                                       std::optional<size_t> round);

// The figures between those of the dense candidates next to `file_bytes`, or of the nearest one
// beyond their ends: for a candidate whose formats are not known yet. Empty: no dense candidate
// has known formats.
std::optional<FitFigures> Interpolate(std::span<const FitCandidate> candidates,
                                      uint64_t file_bytes);

// Marks as left out those whose file, exactly, or whose predicted memory or median step, which p99
// is no less than, by more than kFitTolerance, is over the budget. Returns the positions of the
// others and of the dense alternatives that sparse ones among them are compared with.
std::vector<size_t> ScreenCandidates(const FitBudget& budget,
                                     std::vector<FitCandidate>* candidates);

// The better half of `alive` after `round`, by file size, KL and predicted time, with the dense
// alternatives of the sparse ones in it.
std::vector<size_t> HalveCandidates(std::span<const FitCandidate> candidates,
                                    std::span<const size_t> alive, size_t round);

// Largest of figure / limit over the budget's limits; at most 1 when all are met.
double BudgetShare(const FitBudget& budget, uint64_t file_bytes, const FitFigures& figures);

// "p99 2.10 ms (budget 2 ms, 5 % over), ..." of the limits that are not met; empty: all are.
std::string BudgetMisses(const FitBudget& budget, uint64_t file_bytes, const FitFigures& figures);

// Of the measured candidates that meet the budget, the one with the lowest KL in its last round;
// of equal ones the smaller, then the first.
std::optional<size_t> ChooseCandidate(const FitBudget& budget,
                                      std::span<const FitCandidate> candidates);

// Why nothing was chosen: the nearest candidate and what it misses.
std::string DescribeShortfall(const FitBudget& budget, std::span<const FitCandidate> candidates);

}  // namespace edgewise
