// Mean and spread of a stream of numbers (Welford 1962).
#pragma once

#include <cmath>
#include <cstdint>

namespace edgewise {

class Moments {
 public:
  void Add(double x) {
    ++count_;
    const double delta = x - mean_;
    mean_ += delta / static_cast<double>(count_);
    squares_ += delta * (x - mean_);
  }
  uint64_t count() const { return count_; }
  double mean() const { return mean_; }
  // Standard error of the mean, the numbers taken as independent; 0 for fewer than two.
  double std_error() const {
    if (count_ < 2) return 0;
    const auto n = static_cast<double>(count_);
    return std::sqrt(squares_ / (n - 1) / n);
  }

 private:
  uint64_t count_ = 0;
  double mean_ = 0;
  double squares_ = 0;  // sum of squared distances to the mean
};

}  // namespace edgewise
