// OWL (Yin et al. 2024): layers in which more weights stand out keep more of their weights.
#pragma once

#include <span>
#include <vector>

#include "base/result.h"

namespace edgewise {

// The share, in percent, of a layer's `scores`, one span for each of its matrices, that exceed
// `multiple` times their mean: its outliers. Scores are Wanda's.
double OutlierPercent(std::span<const std::span<const float>> scores, double multiple = 5);

// Returns for each layer the share of weights to prune: lower where there are more outliers, spread
// over at most 2 `lambda`, with mean `target`. Errors: kInvalidArgument (no layer; target or a
// layer's share outside [0, 1)).
Result<std::vector<double>> OwlRatios(std::span<const double> outlier_percent, double target,
                                      double lambda = 0.08);

}  // namespace edgewise
