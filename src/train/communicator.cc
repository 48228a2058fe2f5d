#include "train/communicator.h"

#include <algorithm>

namespace edgewise::train {

Communicator::Part Communicator::PartOf(size_t n, int rank) const {
  const auto ranks = static_cast<size_t>(size()), r = static_cast<size_t>(rank);
  const size_t each = n / ranks, longer = n % ranks;  // the first parts take one value more
  return {r * each + std::min(r, longer), each + (r < longer)};
}

void Communicator::Collect(std::span<const float> values, int,
                           FunctionRef<void(size_t at, std::span<const float> piece)> take) {
  take(0, values);
}

void Communicator::Gather(std::span<const float> part, std::span<float> all) {
  std::copy(part.begin(), part.end(), all.begin());
}

Communicator& OrAlone(Communicator* given) {
  static Communicator alone;
  return given != nullptr ? *given : alone;
}

}  // namespace edgewise::train
