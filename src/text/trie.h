// Trie: finds which stored strings a text starts with.
#pragma once

#include <cstdint>
#include <string_view>
#include <utility>
#include <vector>

namespace edgewise {

// Immutable, so thread-safe. Children lie next to each other, sorted by byte.
class Trie {
 public:
  static constexpr int32_t kNone = -1;
  static constexpr uint32_t kRoot = 0;

  struct Match {
    size_t length = 0;
    int32_t value = kNone;
  };

  // Values are not negative. Of equal strings the highest value counts; empty strings are left out.
  explicit Trie(std::vector<std::pair<std::string_view, int32_t>> entries = {});

  // Returns the child of `node` by `byte`, or kRoot (which is nobody's child) when there is none.
  uint32_t Child(uint32_t node, uint8_t byte) const {
    const Node& parent = nodes_[node];
    if (parent.count != 1) return ChildOfMany(node, byte);
    return parent.first_child_byte == byte ? parent.children : kRoot;
  }
  // The value of the string that ends at `node`, or kNone.
  int32_t Value(uint32_t node) const { return nodes_[node].value; }
  // Returns the longest stored string that `text` starts with.
  Match Longest(std::string_view text) const;
  bool empty() const { return nodes_.size() == 1; }
  // True when some stored string starts with this byte.
  bool StartsWith(uint8_t byte) const { return root_[byte] != kRoot; }

 private:
  struct Node {
    uint32_t children = 0;         // index of the first child
    uint16_t count = 0;            // number of children
    uint8_t byte = 0;              // on the edge to this node
    uint8_t first_child_byte = 0;  // saves a look at the child, as most nodes have one
    int32_t value = kNone;
  };
  uint32_t ChildOfMany(uint32_t node, uint8_t byte) const;
  std::vector<Node> nodes_;
  std::vector<uint32_t> root_;  // by byte, for the root's children
};

}  // namespace edgewise
