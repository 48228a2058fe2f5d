// Text that remembers which of its bytes the template's author wrote and which came from outside.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace edgewise::jinja {

// A byte string cut into runs of one origin. Ordinary value semantics.
class Text {
 public:
  struct Run {
    size_t end;  // one past the last byte; the run begins where the previous one ends
    bool trusted;
  };

  Text() = default;
  explicit Text(std::string_view bytes, bool trusted = true) { Append(bytes, trusted); }

  void Append(std::string_view bytes, bool trusted);
  void Append(const Text& other) { Append(other, 0, other.size()); }
  // Appends the bytes [begin, end) of `other`, which must not be *this.
  void Append(const Text& other, size_t begin, size_t end);

  Text Slice(size_t begin, size_t end) const;
  bool TrustedAt(size_t position) const { return runs_[RunAt(position)].trusted; }
  // True when no byte came from outside.
  bool Trusted() const;

  const std::string& bytes() const { return bytes_; }
  size_t size() const { return bytes_.size(); }
  bool empty() const { return bytes_.empty(); }
  const std::vector<Run>& runs() const { return runs_; }

 private:
  size_t RunAt(size_t position) const;
  std::string bytes_;
  std::vector<Run> runs_;
};

}  // namespace edgewise::jinja
