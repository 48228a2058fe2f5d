// TopK: the most probable tokens of a distribution, packed into a record of a fixed size.
//
// A record of k tokens of a vocabulary of V, with b = the bits of V - 1:
// offset           size            field
// 0                ceil(k b / 8)   ids by rising number, b bits each, lowest bits first
// ceil(k b / 8)    2 k             their log-probabilities, F16, in nats
// ... + 2 k        2               log of the mass of all other tokens, F16; absent when k = V
//
// An F16 is within 2^-12 of its value, so a probability p within p |log p| 2^-12 of itself, and the
// cross-entropy that a record gives within 2^-12 of itself.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "base/result.h"

namespace edgewise::train {

struct TopKShape {
  uint32_t k = 0;           // 1 to vocabulary
  uint32_t vocabulary = 0;  // V

  bool operator==(const TopKShape&) const = default;
  unsigned id_bits() const { return static_cast<unsigned>(std::bit_width(vocabulary - 1)); }
  uint64_t ids_bytes() const { return (uint64_t{k} * id_bits() + 7) / 8; }
  uint64_t values() const { return uint64_t{k} + (k < vocabulary); }
  uint64_t record_bytes() const { return ids_bytes() + 2 * values(); }
};

// Copies the x (n) whose index is not among `ids`, which rise; returns how many. `others` may be x.
size_t CopyOthers(const float* x, size_t n, std::span<const int32_t> ids, float* others);

// Writes the record of softmax(logits / temperature) to `record` (record_bytes()). Of equal
// probabilities the lower id is taken first. Errors: kBadData (logits that are not finite).
Status EncodeTopK(const TopKShape& shape, double temperature, const float* logits,
                  std::byte* record);
// Reads a record: ids (k) by rising number and log_p (values()), of probabilities that sum to 1: a
// divergence from them is not negative for what rounding did. Errors: kBadData (ids out of order or
// range, values that are no distribution).
Status DecodeTopK(const TopKShape& shape, const std::byte* record, int32_t* ids, float* log_p);

}  // namespace edgewise::train
