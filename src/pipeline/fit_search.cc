#include "pipeline/fit_search.h"

#include <algorithm>
#include <numeric>
#include <tuple>
#include <utility>

#include "base/check.h"
#include "base/strings.h"

namespace edgewise {
namespace {

constexpr size_t kFinalists = 4;

bool Dominates(const Objectives& a, const Objectives& b) {
  bool better = false;
  for (size_t i = 0; i < a.size(); ++i) {
    if (a[i] > b[i]) return false;
    better = better || a[i] < b[i];
  }
  return better;
}

// The front of those of `points` that are in `among`.
std::vector<size_t> FrontOf(std::span<const Objectives> points, std::span<const size_t> among) {
  std::vector<size_t> front;
  for (const size_t i : among) {
    if (std::none_of(among.begin(), among.end(),
                     [&](size_t j) { return Dominates(points[j], points[i]); })) {
      front.push_back(i);
    }
  }
  return front;
}

// How much room each member of a front has between its neighbours, summed over the objectives. The
// best in an objective comes before all others, that of the first objective before those of the
// next.
std::vector<double> CrowdingDistances(std::span<const Objectives> points,
                                      std::span<const size_t> front) {
  constexpr double kBest = 1e6;  // above any sum of shares
  std::vector<double> distances(front.size(), 0);
  std::vector<size_t> order(front.size());
  const size_t objectives = points[front.front()].size();
  for (size_t k = 0; k < objectives; ++k) {
    const auto value = [&](size_t i) { return points[front[order[i]]][k]; };
    std::iota(order.begin(), order.end(), size_t{0});
    std::sort(order.begin(), order.end(), [&](size_t a, size_t b) {
      return std::pair(points[front[a]][k], a) < std::pair(points[front[b]][k], b);
    });
    const size_t last = order.size() - 1;
    const double range = value(last) - value(0);
    for (size_t i = 1; range > 0 && i <= last; ++i) {
      distances[order[i]] += (value(std::min(i + 1, last)) - value(i - 1)) / range;
    }
    distances[order[0]] =
        std::max(distances[order[0]], kBest * static_cast<double>(objectives - k));
  }
  return distances;
}

// Adds the dense alternative of each sparse candidate in `kept`, from `among`; in order.
std::vector<size_t> WithAlternatives(std::span<const FitCandidate> candidates,
                                     std::vector<size_t> kept, std::span<const size_t> among,
                                     std::optional<size_t> round) {
  std::vector<size_t> alternatives;
  for (const size_t i : kept) {
    if (!candidates[i].sparse) continue;
    if (const auto dense = DenseAlternative(candidates, among, i, round)) {
      alternatives.push_back(*dense);
    }
  }
  kept.insert(kept.end(), alternatives.begin(), alternatives.end());
  std::sort(kept.begin(), kept.end());
  kept.erase(std::unique(kept.begin(), kept.end()), kept.end());
  return kept;
}

// "file 2.1 MiB (budget 2 MiB, 5 % over)"
std::string Miss(const std::string& what, const std::string& limit, double share) {
  return Format("%s (budget %s, %.1f %% over)", what.c_str(), limit.c_str(), 100 * (share - 1));
}

double Share(double figure, double limit) { return limit > 0 ? figure / limit : 0; }

const FitFigures& BestKnown(const FitCandidate& candidate) {
  return candidate.measured ? *candidate.measured : candidate.predicted;
}

}  // namespace

std::vector<uint32_t> RoundWindows(size_t candidates, uint32_t windows) {
  std::vector<uint32_t> rounds = {windows};
  for (size_t left = candidates; left > kFinalists && rounds.front() > 1; left = (left + 1) / 2) {
    rounds.insert(rounds.begin(), rounds.front() / 2);
  }
  return rounds;
}

std::vector<size_t> ParetoFront(std::span<const Objectives> points) {
  std::vector<size_t> all(points.size());
  std::iota(all.begin(), all.end(), size_t{0});
  return FrontOf(points, all);
}

std::vector<size_t> KeepBest(std::span<const Objectives> points, size_t count) {
  std::vector<size_t> rest(points.size()), kept;
  std::iota(rest.begin(), rest.end(), size_t{0});
  count = std::min(count, points.size());
  while (kept.size() < count) {
    std::vector<size_t> front = FrontOf(points, rest);
    std::erase_if(rest,
                  [&](size_t i) { return std::binary_search(front.begin(), front.end(), i); });
    const size_t room = count - kept.size();
    if (front.size() > room) {
      const std::vector<double> distances = CrowdingDistances(points, front);
      std::vector<size_t> order(front.size());
      std::iota(order.begin(), order.end(), size_t{0});
      std::sort(order.begin(), order.end(), [&](size_t a, size_t b) {
        return std::pair(distances[b], a) < std::pair(distances[a], b);
      });
      std::vector<size_t> roomiest;
      for (size_t i = 0; i < room; ++i) roomiest.push_back(front[order[i]]);
      front = std::move(roomiest);
    }
    kept.insert(kept.end(), front.begin(), front.end());
  }
  std::sort(kept.begin(), kept.end());
  return kept;
}

std::optional<size_t> DenseAlternative(std::span<const FitCandidate> candidates,
                                       std::span<const size_t> among, size_t sparse,
                                       std::optional<size_t> round) {
  std::optional<size_t> best;
  const auto better = [&](const FitCandidate& a, const FitCandidate& b) {
    return round ? a.kl[*round].mean < b.kl[*round].mean : a.file_bytes > b.file_bytes;
  };
  for (const size_t i : among) {
    const FitCandidate& candidate = candidates[i];
    if (candidate.sparse || candidate.file_bytes == 0) continue;
    if (candidate.file_bytes > candidates[sparse].file_bytes) continue;
    if (round && candidate.kl.size() <= *round) continue;
    if (!best || better(candidate, candidates[*best])) best = i;
  }
  return best;
}

std::optional<FitFigures> Interpolate(std::span<const FitCandidate> candidates,
                                      uint64_t file_bytes) {
  const FitCandidate *below = nullptr, *above = nullptr;
  for (const FitCandidate& c : candidates) {
    if (c.sparse || c.formats_open || !c.left_out.empty()) continue;
    if (c.file_bytes <= file_bytes && (!below || c.file_bytes > below->file_bytes)) below = &c;
    if (c.file_bytes >= file_bytes && (!above || c.file_bytes < above->file_bytes)) above = &c;
  }
  if (!below && !above) return std::nullopt;
  const FitFigures& low = (below ? below : above)->predicted;
  const FitFigures& high = (above ? above : below)->predicted;
  double share = 0;
  if (below && above && above->file_bytes > below->file_bytes) {
    share = static_cast<double>(file_bytes - below->file_bytes) /
            static_cast<double>(above->file_bytes - below->file_bytes);
  }
  const auto between = [share](double a, double b) { return a + share * (b - a); };
  return FitFigures{between(low.step_ms, high.step_ms), between(low.p99_ms, high.p99_ms),
                    static_cast<uint64_t>(between(static_cast<double>(low.memory_bytes),
                                                  static_cast<double>(high.memory_bytes)))};
}

std::vector<size_t> ScreenCandidates(const FitBudget& budget,
                                     std::vector<FitCandidate>* candidates) {
  FitBudget wide = budget;
  wide.memory_bytes =
      static_cast<uint64_t>(static_cast<double>(budget.memory_bytes) * (1 + kFitTolerance));
  wide.p99_ms *= 1 + kFitTolerance;
  std::vector<size_t> kept, possible;
  for (size_t i = 0; i < candidates->size(); ++i) {
    FitCandidate& candidate = (*candidates)[i];
    if (!candidate.left_out.empty()) continue;
    possible.push_back(i);
    // The median step is below any p99, whose prediction one disturbance can spoil for all.
    FitFigures least = candidate.predicted;
    least.p99_ms = least.step_ms;
    if (BudgetShare(wide, candidate.file_bytes, least) <= 1) {
      kept.push_back(i);
    } else {
      candidate.left_out = "predicted: " + BudgetMisses(budget, candidate.file_bytes, least);
    }
  }
  kept = WithAlternatives(*candidates, std::move(kept), possible, std::nullopt);
  for (const size_t i : kept) (*candidates)[i].left_out.clear();
  return kept;
}

std::vector<size_t> HalveCandidates(std::span<const FitCandidate> candidates,
                                    std::span<const size_t> alive, size_t round) {
  std::vector<Objectives> points;
  for (const size_t i : alive) {
    points.push_back({candidates[i].kl[round].mean, static_cast<double>(candidates[i].file_bytes),
                      candidates[i].predicted.step_ms});
  }
  std::vector<size_t> kept;
  for (const size_t i : KeepBest(points, (alive.size() + 1) / 2)) kept.push_back(alive[i]);
  return WithAlternatives(candidates, std::move(kept), alive, round);
}

double BudgetShare(const FitBudget& budget, uint64_t file_bytes, const FitFigures& figures) {
  return std::max(
      {Share(static_cast<double>(file_bytes), static_cast<double>(budget.file_bytes)),
       Share(static_cast<double>(figures.memory_bytes), static_cast<double>(budget.memory_bytes)),
       Share(figures.p99_ms, budget.p99_ms)});
}

std::string BudgetMisses(const FitBudget& budget, uint64_t file_bytes, const FitFigures& figures) {
  std::vector<std::string> misses;
  const auto check_bytes = [&](const char* name, uint64_t bytes, uint64_t limit) {
    const double share = Share(static_cast<double>(bytes), static_cast<double>(limit));
    if (share <= 1) return;
    misses.push_back(Miss(std::string(name) + " " + FormatBytes(bytes), FormatBytes(limit), share));
  };
  check_bytes("file", file_bytes, budget.file_bytes);
  check_bytes("memory", figures.memory_bytes, budget.memory_bytes);
  if (const double share = Share(figures.p99_ms, budget.p99_ms); share > 1) {
    misses.push_back(
        Miss(Format("p99 %.4g ms", figures.p99_ms), Format("%.4g ms", budget.p99_ms), share));
  }
  return Join(misses, ", ");
}

std::optional<size_t> ChooseCandidate(const FitBudget& budget,
                                      std::span<const FitCandidate> candidates) {
  const auto rank = [&](size_t i) {
    return std::tuple(candidates[i].kl.back().mean, candidates[i].file_bytes, i);
  };
  std::optional<size_t> best;
  for (size_t i = 0; i < candidates.size(); ++i) {
    const FitCandidate& candidate = candidates[i];
    if (!candidate.measured || candidate.kl.empty()) continue;
    if (BudgetShare(budget, candidate.file_bytes, *candidate.measured) > 1) continue;
    if (!best || rank(i) < rank(*best)) best = i;
  }
  return best;
}

std::string DescribeShortfall(const FitBudget& budget, std::span<const FitCandidate> candidates) {
  const FitCandidate* nearest = nullptr;
  double least = 0;
  for (const FitCandidate& candidate : candidates) {
    if (candidate.file_bytes == 0) continue;
    const double share = BudgetShare(budget, candidate.file_bytes, BestKnown(candidate));
    if (nearest && share >= least) continue;
    nearest = &candidate;
    least = share;
  }
  EW_CHECK(nearest != nullptr);
  return Format("no candidate meets the budget; nearest is %s, %s: %s", nearest->name.c_str(),
                nearest->measured ? "measured" : "predicted",
                BudgetMisses(budget, nearest->file_bytes, BestKnown(*nearest)).c_str());
}

}  // namespace edgewise
