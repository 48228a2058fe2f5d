#include "compress/prune/owl.h"

#include <algorithm>
#include <cstddef>
#include <numeric>

#include "base/strings.h"
#include "compress/prune/sparsity.h"

namespace edgewise {

double OutlierPercent(std::span<const std::span<const float>> scores, double multiple) {
  double sum = 0;
  size_t count = 0, outliers = 0;
  for (const auto& matrix : scores) {
    sum = std::accumulate(matrix.begin(), matrix.end(), sum);
    count += matrix.size();
  }
  if (count == 0) return 0;
  const double limit = multiple * sum / static_cast<double>(count);
  for (const auto& matrix : scores) {
    for (const float score : matrix) outliers += score > limit ? 1 : 0;
  }
  return 100 * static_cast<double>(outliers) / static_cast<double>(count);
}

Result<std::vector<double>> OwlRatios(std::span<const double> outlier_percent, double target,
                                      double lambda) {
  EW_TRY(Sparsity::Unstructured(target));
  if (outlier_percent.empty()) {
    return MakeError(Code::kInvalidArgument, "no layers to spread sparsity over");
  }
  const auto [low, high] = std::minmax_element(outlier_percent.begin(), outlier_percent.end());
  const double by = *high > *low ? 2 * lambda / (*high - *low) : 0;
  const double mean = std::accumulate(outlier_percent.begin(), outlier_percent.end(), 0.0) /
                      static_cast<double>(outlier_percent.size());
  std::vector<double> ratios;
  for (const double percent : outlier_percent) {
    const double ratio = target - by * (percent - mean);
    if (!(ratio >= 0 && ratio < 1)) {
      return MakeError(Code::kInvalidArgument,
                       "a mean sparsity of %g with lambda %g would prune a share of %g from layer "
                       "%zu: choose a lambda that keeps all layers at least 0 and below 1",
                       target, lambda, ratio, ratios.size());
    }
    ratios.push_back(ratio);
  }
  return ratios;
}

}  // namespace edgewise
