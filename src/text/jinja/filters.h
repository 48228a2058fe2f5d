// The filters of the subset.
#pragma once

#include <span>
#include <string_view>

#include "text/jinja/runtime.h"

namespace edgewise::jinja {

struct FilterEntry {
  std::string_view name;
  Builtin function;
};

// Returns the filter of this name; null when we have none.
const FilterEntry* FindFilter(std::string_view name);

// The two halves of the table.
std::span<const FilterEntry> TextAndNumberFilters();
std::span<const FilterEntry> SequenceFilters();

}  // namespace edgewise::jinja
