// Rows of a training file, one at a time: lines, the elements of a JSON array, or documents of
// text.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

namespace edgewise::train {

struct DatasetRow {
  std::string_view text;          // of the file, trimmed; empty only with a problem
  uint64_t line = 1;              // where it begins, from 1
  const char* problem = nullptr;  // why the file's shape is broken here, so that it is no row
};

enum class RowShape : uint8_t { kDocuments, kLines, kArray };

// Walks through a text, which the caller keeps alive, without a copy of it.
class RowReader {
 public:
  // An array begins at the text's first byte that is not blank.
  RowReader(std::string_view text, RowShape shape);
  // Returns the next row that is not blank; none at the end.
  std::optional<DatasetRow> Next();
  // Bytes before this offset are not needed for the rows to come.
  size_t offset() const { return at_; }

 private:
  std::string_view NextDocument();
  std::string_view NextLine();
  std::string_view NextElement(const char** problem);

  std::string_view text_;
  RowShape shape_;
  size_t at_ = 0;
  size_t counted_ = 0;  // `line_` is the line of this byte
  uint64_t line_ = 1;
  bool open_ = false;       // inside the array
  bool comma_due_ = false;  // before its next element
};

}  // namespace edgewise::train
