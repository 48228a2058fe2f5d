#include "compress/prune/sparsity.h"

#include <cmath>

#include "base/strings.h"

namespace edgewise {
namespace {

constexpr int64_t kMaxGroup = 64;  // the bits of a word

Error Unreadable(std::string_view text) {
  return MakeError(Code::kInvalidArgument,
                   "%s is no sparsity: give the share of weights to prune, at least 0 and below 1 "
                   "(0.5 or 50%%), or N:M to keep N of each M weights, N < M <= %lld (2:4)",
                   Quote(text).c_str(), static_cast<long long>(kMaxGroup));
}

}  // namespace

Result<Sparsity> Sparsity::Unstructured(double ratio) {
  if (!(ratio >= 0 && ratio < 1)) return Unreadable(Format("%g", ratio));
  return Sparsity{.ratio = ratio};
}

Result<Sparsity> Sparsity::NOfM(int64_t keep, int64_t group) {
  if (keep < 1 || keep >= group || group > kMaxGroup) {
    return Unreadable(
        Format("%lld:%lld", static_cast<long long>(keep), static_cast<long long>(group)));
  }
  return Sparsity{.ratio = 1 - static_cast<double>(keep) / static_cast<double>(group),
                  .keep = static_cast<uint32_t>(keep),
                  .group = static_cast<uint32_t>(group)};
}

Result<Sparsity> Sparsity::Parse(std::string_view text) {
  const std::string_view trimmed = Trim(text);
  if (const size_t colon = trimmed.find(':'); colon != std::string_view::npos) {
    const auto keep = ParseInt(trimmed.substr(0, colon));
    const auto group = ParseInt(trimmed.substr(colon + 1));
    if (!keep || !group) return Unreadable(text);
    return NOfM(*keep, *group);
  }
  const bool percent = trimmed.ends_with('%');
  const auto number = ParseDouble(trimmed.substr(0, trimmed.size() - (percent ? 1 : 0)));
  if (!number) return Unreadable(text);
  const double ratio = percent ? *number / 100 : *number;
  if (!(ratio >= 0 && ratio < 1)) return Unreadable(text);
  return Sparsity{.ratio = ratio};
}

size_t Sparsity::PrunedOf(size_t count) const {
  return static_cast<size_t>(std::nextafter(ratio, 1.0) * static_cast<double>(count));
}

Status Sparsity::CheckColumns(size_t columns) const {
  if (!structured() || columns % group == 0) return Ok{};
  return MakeError(Code::kInvalidArgument,
                   "rows of %zu weights do not split into the groups of %u that sparsity %u:%u "
                   "needs: choose an M that divides %zu",
                   columns, group, keep, group, columns);
}

std::string Sparsity::ToString() const {
  return structured() ? Format("%u:%u", keep, group) : Format("%g%%", 100 * ratio);
}

}  // namespace edgewise
