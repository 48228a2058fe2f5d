// SHA-256 (FIPS 180-4), with the x86 SHA extensions where the CPU has them; used to name inputs in
// an output's metadata.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

namespace edgewise {

class Sha256 {
 public:
  Sha256();
  void Update(std::span<const std::byte> bytes);
  // Returns the digest; the object must not be used afterwards.
  std::array<uint8_t, 32> Finish();

 private:
  std::array<uint32_t, 8> state_;
  std::array<uint8_t, 64> pending_;
  uint64_t length_ = 0;
};

// Returns the digest as 64 lower-case hexadecimal digits.
std::string ToHex(const std::array<uint8_t, 32>& digest);
std::string Sha256Hex(std::span<const std::byte> bytes);

}  // namespace edgewise
