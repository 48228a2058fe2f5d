#include "text/jinja/text.h"

#include <algorithm>

namespace edgewise::jinja {

void Text::Append(std::string_view bytes, bool trusted) {
  if (bytes.empty()) return;
  bytes_ += bytes;
  if (!runs_.empty() && runs_.back().trusted == trusted) {
    runs_.back().end = bytes_.size();
  } else {
    runs_.push_back({bytes_.size(), trusted});
  }
}

void Text::Append(const Text& other, size_t begin, size_t end) {
  if (begin >= end) return;
  const std::string_view source = other.bytes_;
  for (size_t run = other.RunAt(begin); begin < end; ++run) {
    const size_t stop = std::min(end, other.runs_[run].end);
    Append(source.substr(begin, stop - begin), other.runs_[run].trusted);
    begin = stop;
  }
}

Text Text::Slice(size_t begin, size_t end) const {
  Text result;
  result.Append(*this, begin, end);
  return result;
}

bool Text::Trusted() const {
  return std::all_of(runs_.begin(), runs_.end(), [](const Run& run) { return run.trusted; });
}

size_t Text::RunAt(size_t position) const {
  const auto after = std::upper_bound(runs_.begin(), runs_.end(), position,
                                      [](size_t at, const Run& run) { return at < run.end; });
  return static_cast<size_t>(after - runs_.begin());
}

}  // namespace edgewise::jinja
