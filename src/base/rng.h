// Rng: xoshiro256++ (Blackman, Vigna 2019) seeded by splitmix64. The same seed gives the same
// numbers on every machine.
#pragma once

#include <cstdint>

namespace edgewise {

// Not thread-safe; give each thread its own.
class Rng {
 public:
  explicit Rng(uint64_t seed);
  uint64_t Next();                 // uniform over all 64-bit values
  uint64_t Below(uint64_t bound);  // uniform in [0, bound), bound > 0, without modulo bias
  double Uniform();                // uniform in [0, 1), 53 bits
  double Gaussian();               // mean 0, variance 1 (Box-Muller)

 private:
  uint64_t state_[4];
  double spare_ = 0;
  bool has_spare_ = false;
};

}  // namespace edgewise
