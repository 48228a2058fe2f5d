#include "text/trie.h"

#include <algorithm>

namespace edgewise {

Trie::Trie(std::vector<std::pair<std::string_view, int32_t>> entries) : nodes_(1), root_(256) {
  std::sort(entries.begin(), entries.end());
  struct Range {
    size_t begin, end;  // the entries below this node
  };
  std::vector<Range> ranges = {{0, entries.size()}};
  std::vector<size_t> depths = {0};
  for (uint32_t node = 0; node < nodes_.size(); ++node) {
    auto [i, end] = ranges[node];
    const size_t depth = depths[node];
    for (; i < end && entries[i].first.size() == depth; ++i) {
      if (depth > 0) nodes_[node].value = entries[i].second;
    }
    nodes_[node].children = static_cast<uint32_t>(nodes_.size());
    while (i < end) {
      const auto byte = static_cast<uint8_t>(entries[i].first[depth]);
      const size_t begin = i;
      while (i < end && static_cast<uint8_t>(entries[i].first[depth]) == byte) ++i;
      if (nodes_[node].count++ == 0) nodes_[node].first_child_byte = byte;
      nodes_.push_back({0, 0, byte, 0, kNone});
      ranges.push_back({begin, i});
      depths.push_back(depth + 1);
    }
  }
  for (uint32_t i = 0; i < nodes_[kRoot].count; ++i) {
    const uint32_t child = nodes_[kRoot].children + i;
    root_[nodes_[child].byte] = child;
  }
}

uint32_t Trie::ChildOfMany(uint32_t node, uint8_t byte) const {
  if (node == kRoot) return root_[byte];
  const Node* child = nodes_.data() + nodes_[node].children;
  size_t count = nodes_[node].count;
  // Halve until few are left: most nodes have one or two children.
  for (; count > 4; count -= count / 2) {
    if (child[count / 2].byte <= byte) child += count / 2;
  }
  for (const Node* end = child + count; child != end; ++child) {
    if (child->byte == byte) return static_cast<uint32_t>(child - nodes_.data());
  }
  return kRoot;
}

Trie::Match Trie::Longest(std::string_view text) const {
  Match match;
  uint32_t node = kRoot;
  for (size_t i = 0; i < text.size(); ++i) {
    node = Child(node, static_cast<uint8_t>(text[i]));
    if (node == kRoot) break;
    if (Value(node) != kNone) match = {i + 1, Value(node)};
  }
  return match;
}

}  // namespace edgewise
