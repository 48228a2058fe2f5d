// Filters of lists, tuples and dicts.
#include <algorithm>

#include "base/strings.h"
#include "text/jinja/filters.h"
#include "text/jinja/interpreter.h"
#include "text/jinja/strings.h"
#include "text/jinja/tests.h"

namespace edgewise::jinja {
namespace {

// Returns what an `attribute` argument ("role", "function.name", 0) names in a value.
Result<Value> AttributeOf(Runtime& runtime, Value value, const Value& attribute) {
  if (attribute.is_int()) return ElementOf(runtime, value, attribute);
  EW_TRY(const Text* path, TextArgument(&attribute, "attribute"));
  for (const std::string_view part : Split(path->bytes(), ".")) {
    if (value.is_undefined())
      return MakeError(Code::kBadData, "the attribute %s is undefined",
                       Quote(path->bytes()).c_str());
    EW_TRY(runtime.Charge(1));
    const Result<int64_t> index = ParseInt(part);
    const bool digits =
        index && std::all_of(part.begin(), part.end(), [](char c) { return c >= '0' && c <= '9'; });
    EW_TRY(value, ElementOf(runtime, value, digits ? Value::Int(*index) : Value::String(part)));
  }
  return value;
}

// What items are ordered by or told apart by: an attribute or themselves, strings in lower case
// unless case counts.
Result<std::vector<Value>> Keys(Runtime& runtime, const std::vector<Value>& items,
                                const Value* attribute, bool case_sensitive) {
  std::vector<Value> keys;
  for (const Value& item : items) {
    Value key = item;
    if (attribute && !attribute->is_none()) {
      EW_TRY(key, AttributeOf(runtime, item, *attribute));
    }
    if (const Text* text = key.AsText(); text && !case_sensitive) {
      EW_TRY(runtime.ChargeBytes(text->size() * 8));
      key = Value::String(Lower(*text));
    }
    keys.push_back(std::move(key));
  }
  return keys;
}

// Merges the sorted halves [begin, middle) and [middle, end) of `order`.
Status Merge(Runtime& runtime, const std::vector<Value>& keys, bool reverse, size_t begin,
             size_t middle, size_t end, std::vector<size_t>* order) {
  std::vector<size_t> merged;
  size_t a = begin, b = middle;
  while (a < middle && b < end) {
    EW_TRY(runtime.Charge(1));
    const Value &left = keys[(*order)[a]], &right = keys[(*order)[b]];
    EW_TRY(const bool swap, reverse ? Less(runtime, left, right) : Less(runtime, right, left));
    merged.push_back((*order)[swap ? b++ : a++]);
  }
  const auto at = [order](size_t i) { return order->begin() + static_cast<std::ptrdiff_t>(i); };
  merged.insert(merged.end(), at(a), at(middle));
  merged.insert(merged.end(), at(b), at(end));
  std::copy(merged.begin(), merged.end(), at(begin));
  return Ok{};
}

// Returns the stable order of the keys. A merge sort of our own, because comparing may fail.
Result<std::vector<size_t>> SortedOrder(Runtime& runtime, const std::vector<Value>& keys,
                                        bool reverse) {
  std::vector<size_t> order(keys.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = i;
  for (size_t width = 1; width < order.size(); width *= 2) {
    for (size_t begin = 0; begin + width < order.size(); begin += 2 * width) {
      EW_TRY(Merge(runtime, keys, reverse, begin, begin + width,
                   std::min(begin + 2 * width, order.size()), &order));
    }
  }
  return order;
}

Result<Value> Permuted(Runtime& runtime, const std::vector<Value>& items,
                       const std::vector<size_t>& order) {
  std::vector<Value> sorted;
  for (const size_t i : order) sorted.push_back(items[i]);
  return runtime.MakeList(std::move(sorted));
}

bool Flag(const Value* value) { return value && value->Truthy(); }

Result<Value> SortFilter(Runtime& runtime, const Value& self, const Arguments& arguments) {
  EW_TRY(const auto args, Bind(arguments, "sort", {"reverse", "case_sensitive", "attribute"}));
  EW_TRY(const std::vector<Value> items, Elements(runtime, self));
  EW_TRY(const std::vector<Value> keys, Keys(runtime, items, args[2], Flag(args[1])));
  EW_TRY(const std::vector<size_t> order, SortedOrder(runtime, keys, Flag(args[0])));
  return Permuted(runtime, items, order);
}

Result<Value> DictSortFilter(Runtime& runtime, const Value& self, const Arguments& arguments) {
  EW_TRY(const auto args, Bind(arguments, "dictsort", {"case_sensitive", "by", "reverse"}));
  const Dict* dict = self.AsDict();
  if (!dict) return MakeError(Code::kBadData, "dictsort of a '%s'", self.TypeName());
  bool by_value = false;
  if (args[1]) {
    EW_TRY(const Text* by, TextArgument(args[1], "dictsort"));
    by_value = by->bytes() == "value";
    if (!by_value && by->bytes() != "key")
      return MakeError(Code::kBadData, "dictsort: by must be 'key' or 'value'");
  }
  std::vector<Value> items, sorted_by;
  for (const auto& [key, value] : dict->entries) {
    EW_TRY(Value pair, runtime.MakeList({key, value}, true));
    items.push_back(std::move(pair));
    sorted_by.push_back(by_value ? value : key);
  }
  EW_TRY(const std::vector<Value> keys, Keys(runtime, sorted_by, nullptr, Flag(args[0])));
  EW_TRY(const std::vector<size_t> order, SortedOrder(runtime, keys, Flag(args[2])));
  return Permuted(runtime, items, order);
}

Result<Value> UniqueFilter(Runtime& runtime, const Value& self, const Arguments& arguments) {
  EW_TRY(const auto args, Bind(arguments, "unique", {"case_sensitive", "attribute"}));
  EW_TRY(const std::vector<Value> items, Elements(runtime, self));
  EW_TRY(const std::vector<Value> keys, Keys(runtime, items, args[1], Flag(args[0])));
  EW_TRY(const Value seen, runtime.MakeList({}));
  std::vector<Value> kept;
  for (size_t i = 0; i < items.size(); ++i) {
    EW_TRY(const bool known, Contains(runtime, seen, keys[i]));
    if (known) continue;
    seen.AsList()->items.push_back(keys[i]);
    kept.push_back(items[i]);
  }
  return runtime.MakeList(std::move(kept));
}

template <bool largest>
Result<Value> ExtremeFilter(Runtime& runtime, const Value& self, const Arguments& arguments) {
  EW_TRY(const auto args, Bind(arguments, "min/max", {"case_sensitive", "attribute"}));
  EW_TRY(const std::vector<Value> items, Elements(runtime, self));
  if (items.empty()) return Value();
  EW_TRY(const std::vector<Value> keys, Keys(runtime, items, args[1], Flag(args[0])));
  size_t best = 0;
  for (size_t i = 1; i < items.size(); ++i) {
    EW_TRY(const bool better,
           largest ? Less(runtime, keys[best], keys[i]) : Less(runtime, keys[i], keys[best]));
    if (better) best = i;
  }
  return items[best];
}

Result<Value> SumFilter(Runtime& runtime, const Value& self, const Arguments& arguments) {
  EW_TRY(const auto args, Bind(arguments, "sum", {"attribute", "start"}));
  EW_TRY(const std::vector<Value> items, Elements(runtime, self));
  Value total = args[1] ? *args[1] : Value::Int(0);
  for (const Value& item : items) {
    Value value = item;
    if (args[0] && !args[0]->is_none()) {
      EW_TRY(value, AttributeOf(runtime, item, *args[0]));
    }
    EW_TRY(total, Arithmetic(runtime, Operator::kAdd, total, value));
  }
  return total;
}

Result<Value> JoinFilter(Runtime& runtime, const Value& self, const Arguments& arguments) {
  EW_TRY(const auto args, Bind(arguments, "join", {"d", "attribute"}));
  EW_TRY(std::vector<Value> items, Elements(runtime, self));
  if (args[1] && !args[1]->is_none()) {
    for (Value& item : items) {
      EW_TRY(item, AttributeOf(runtime, item, *args[1]));
    }
  }
  Text separator;
  if (args[0]) {
    EW_TRY(separator, ToText(runtime, *args[0]));
  }
  EW_TRY(Text text, JoinItems(runtime, items, separator));
  return runtime.MakeText(std::move(text));
}

template <bool last>
Result<Value> EndFilter(Runtime& runtime, const Value& self, const Arguments& arguments) {
  EW_TRY(Bind(arguments, "first/last", {}));
  if (const List* list = self.AsList()) {
    return list->items.empty() ? Value() : last ? list->items.back() : list->items.front();
  }
  if (self.AsText()) return ElementOf(runtime, self, Value::Int(last ? -1 : 0));
  EW_TRY(const std::vector<Value> items, Elements(runtime, self));
  return items.empty() ? Value() : last ? items.back() : items.front();
}

Result<Value> ListFilter(Runtime& runtime, const Value& self, const Arguments& arguments) {
  EW_TRY(Bind(arguments, "list", {}));
  EW_TRY(std::vector<Value> items, Elements(runtime, self));
  return runtime.MakeList(std::move(items));
}

Result<Value> ItemsFilter(Runtime& runtime, const Value& self, const Arguments& arguments) {
  EW_TRY(Bind(arguments, "items", {}));
  if (self.is_undefined()) return runtime.MakeList({});
  const Dict* dict = self.AsDict();
  if (!dict) return MakeError(Code::kBadData, "items of a '%s'", self.TypeName());
  std::vector<Value> items;
  for (const auto& [key, value] : dict->entries) {
    EW_TRY(Value pair, runtime.MakeList({key, value}, true));
    items.push_back(std::move(pair));
  }
  return runtime.MakeList(std::move(items));
}

Result<Value> ReverseFilter(Runtime& runtime, const Value& self, const Arguments& arguments) {
  EW_TRY(Bind(arguments, "reverse", {}));
  EW_TRY(std::vector<Value> items, Elements(runtime, self));
  std::reverse(items.begin(), items.end());
  if (!self.AsText()) return runtime.MakeList(std::move(items));
  EW_TRY(Text text, JoinItems(runtime, items, Text()));
  return runtime.MakeText(std::move(text));
}

// The arguments after the first `count` positional ones.
Arguments Rest(const Arguments& arguments, size_t count) {
  Arguments rest;
  const size_t skipped = std::min(count, arguments.positional.size());
  rest.positional.assign(arguments.positional.begin() + static_cast<std::ptrdiff_t>(skipped),
                         arguments.positional.end());
  rest.keywords = arguments.keywords;
  return rest;
}

Result<Value> MapAttribute(Runtime& runtime, const std::vector<Value>& items,
                           const Arguments& arguments) {
  EW_TRY(const auto args, Bind(arguments, "map", {"attribute", "default"}, 1));
  std::vector<Value> mapped;
  for (const Value& item : items) {
    EW_TRY(Value value, AttributeOf(runtime, item, *args[0]));
    mapped.push_back(value.is_undefined() && args[1] ? *args[1] : std::move(value));
  }
  return runtime.MakeList(std::move(mapped));
}

Result<Value> MapFilter(Runtime& runtime, const Value& self, const Arguments& arguments) {
  EW_TRY(const std::vector<Value> items, Elements(runtime, self));
  if (arguments.positional.empty()) return MapAttribute(runtime, items, arguments);
  EW_TRY(const Text* name, TextArgument(&arguments.positional[0], "map"));
  const FilterEntry* filter = FindFilter(name->bytes());
  if (!filter)
    return MakeError(Code::kUnsupported, "the filter %s in map()", Quote(name->bytes()).c_str());
  // The filter may be map again, with one argument fewer: this bounds how deep they nest.
  if (arguments.positional.size() > static_cast<size_t>(runtime.limits().max_depth)) {
    return MakeError(Code::kBadData, "map: more than %d arguments", runtime.limits().max_depth);
  }
  const Arguments rest = Rest(arguments, 1);
  std::vector<Value> mapped;
  for (const Value& item : items) {
    EW_TRY(runtime.Charge(1 + rest.positional.size()));
    EW_TRY(Value value, filter->function(runtime, item, rest));
    mapped.push_back(std::move(value));
  }
  return runtime.MakeList(std::move(mapped));
}

// select, reject (of the items) and selectattr, rejectattr (of an attribute): keep what passes a
// test, or is true.
template <bool keep, bool by_attribute>
Result<Value> SelectFilter(Runtime& runtime, const Value& self, const Arguments& arguments) {
  EW_TRY(const std::vector<Value> items, Elements(runtime, self));
  constexpr size_t kTestAt = by_attribute ? 1 : 0;
  if (arguments.positional.size() < kTestAt)
    return MakeError(Code::kBadData, "selectattr/rejectattr need an attribute");
  const TestEntry* test = nullptr;
  if (arguments.positional.size() > kTestAt) {
    EW_TRY(const Text* name, TextArgument(&arguments.positional[kTestAt], "select"));
    test = FindTest(name->bytes());
    if (!test)
      return MakeError(Code::kUnsupported, "the test %s in select()", Quote(name->bytes()).c_str());
  }
  const Arguments rest = Rest(arguments, kTestAt + 1);
  std::vector<Value> kept;
  for (const Value& item : items) {
    EW_TRY(runtime.Charge(1 + rest.positional.size()));
    Value value = item;
    if (by_attribute) {
      EW_TRY(value, AttributeOf(runtime, item, arguments.positional[0]));
    }
    bool passes = value.Truthy();
    if (test) {
      EW_TRY(passes, test->function(runtime, value, rest));
    }
    if (passes == keep) kept.push_back(item);
  }
  return runtime.MakeList(std::move(kept));
}

Result<Value> BatchFilter(Runtime& runtime, const Value& self, const Arguments& arguments) {
  EW_TRY(const auto args, Bind(arguments, "batch", {"linecount", "fill_with"}, 1));
  EW_TRY(const std::vector<Value> items, Elements(runtime, self));
  EW_TRY(const int64_t count, IntegerArgument(args[0], "batch", 0));
  if (count < 1) return MakeError(Code::kBadData, "batch: needs a positive count");
  const auto width = static_cast<size_t>(count);
  std::vector<Value> rows;
  for (size_t at = 0; at < items.size(); at += std::min(width, items.size() - at)) {
    const size_t end = at + std::min(width, items.size() - at);
    std::vector<Value> row(items.begin() + static_cast<std::ptrdiff_t>(at),
                           items.begin() + static_cast<std::ptrdiff_t>(end));
    if (args[1] && !args[1]->is_none() && row.size() < width) {
      EW_TRY(runtime.Charge(width - row.size()));
      row.resize(width, *args[1]);
    }
    EW_TRY(Value list, runtime.MakeList(std::move(row)));
    rows.push_back(std::move(list));
  }
  return runtime.MakeList(std::move(rows));
}

Result<Value> SliceFilter(Runtime& runtime, const Value& self, const Arguments& arguments) {
  EW_TRY(const auto args, Bind(arguments, "slice", {"slices", "fill_with"}, 1));
  EW_TRY(const std::vector<Value> items, Elements(runtime, self));
  EW_TRY(const int64_t slices, IntegerArgument(args[0], "slice", 0));
  if (slices < 1) return MakeError(Code::kBadData, "slice: needs a positive count");
  EW_TRY(runtime.Charge(static_cast<uint64_t>(slices)));
  const auto count = static_cast<size_t>(slices);
  const size_t each = items.size() / count, longer = items.size() % count;
  std::vector<Value> columns;
  auto at = items.begin();
  for (size_t i = 0; i < count; ++i) {
    const auto end = at + static_cast<std::ptrdiff_t>(each + (i < longer ? 1 : 0));
    std::vector<Value> column(at, end);
    if (args[1] && !args[1]->is_none() && i >= longer) column.push_back(*args[1]);
    at = end;
    EW_TRY(Value list, runtime.MakeList(std::move(column)));
    columns.push_back(std::move(list));
  }
  return runtime.MakeList(std::move(columns));
}

constexpr FilterEntry kFilters[] = {
    {"batch", BatchFilter},
    {"dictsort", DictSortFilter},
    {"first", EndFilter<false>},
    {"items", ItemsFilter},
    {"join", JoinFilter},
    {"last", EndFilter<true>},
    {"list", ListFilter},
    {"map", MapFilter},
    {"max", ExtremeFilter<true>},
    {"min", ExtremeFilter<false>},
    {"reject", SelectFilter<false, false>},
    {"rejectattr", SelectFilter<false, true>},
    {"reverse", ReverseFilter},
    {"select", SelectFilter<true, false>},
    {"selectattr", SelectFilter<true, true>},
    {"slice", SliceFilter},
    {"sort", SortFilter},
    {"sum", SumFilter},
    {"unique", UniqueFilter},
};

}  // namespace

std::span<const FilterEntry> SequenceFilters() { return kFilters; }

}  // namespace edgewise::jinja
