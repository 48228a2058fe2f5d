// Reading a pass's arguments, whose types the recipe's reader has checked.
#pragma once

#include <cstdint>
#include <string>

#include "base/json.h"

namespace edgewise {

inline bool FlagOr(const Json& arguments, const char* key, bool otherwise) {
  const Json* value = arguments.Find(key);
  return value ? *value->AsBool() : otherwise;
}
inline std::string TextOr(const Json& arguments, const char* key, const char* otherwise) {
  const Json* value = arguments.Find(key);
  return value ? *value->AsString() : otherwise;
}
inline double NumberOr(const Json& arguments, const char* key, double otherwise) {
  const Json* value = arguments.Find(key);
  return value ? *value->AsDouble() : otherwise;
}
inline uint64_t CountOr(const Json& arguments, const char* key, uint64_t otherwise) {
  const Json* value = arguments.Find(key);
  return value ? *value->AsUint() : otherwise;
}

}  // namespace edgewise
