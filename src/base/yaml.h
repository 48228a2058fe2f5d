// YAML: the plain part of it that configuration needs, read into Json values (base/json.h), so that
// only yaml.cc includes yaml-cpp. Plain scalars have the types of YAML 1.2's core schema, decimal
// numbers only; quoted ones are strings.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "base/result.h"

namespace edgewise {

inline constexpr size_t kMaxYamlBytes = 1u << 20;
inline constexpr int kMaxYamlDepth = 64;

// Where a value begins, or its key where it has one; counted from 1.
struct YamlMark {
  int line = 1;
  int column = 1;
};

// A parsed text. Immutable, so thread-safe.
class YamlDocument {
 public:
  const Json& root() const { return root_; }
  // `node` is root() or a value inside it. Linear in the nodes before it: for messages.
  YamlMark MarkOf(const Json& node) const;

 private:
  friend Result<YamlDocument> ParseYaml(std::string_view text);
  Json root_;
  std::vector<YamlMark> marks_;  // of all nodes, each before its members
};

// Parses one document; an empty text is null. Errors: kBadData with line and column (syntax,
// anchor, alias, tag, second document, key that is no string or appears twice, deeper than
// kMaxYamlDepth); kBadData (larger than kMaxYamlBytes, invalid UTF-8).
Result<YamlDocument> ParseYaml(std::string_view text);

}  // namespace edgewise
