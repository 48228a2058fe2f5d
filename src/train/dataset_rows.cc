#include "train/dataset_rows.h"

#include <algorithm>

#include "base/strings.h"
#include "text/document_separator.h"

namespace edgewise::train {
namespace {

constexpr std::string_view kBlanks = " \t\r\n";

// How many brackets and braces a line closes at its very end, before a comma perhaps.
size_t ClosersAtEnd(std::string_view line) {
  size_t count = 0;
  for (; !line.empty() && std::string_view("}], \t\r").find(line.back()) != line.npos;
       line.remove_suffix(1)) {
    count += line.back() == '}' || line.back() == ']';
  }
  return count;
}

}  // namespace

RowReader::RowReader(std::string_view text, RowShape shape) : text_(text), shape_(shape) {
  if (shape != RowShape::kArray) return;
  at_ = std::min(text.find_first_not_of(kBlanks), text.size());
  open_ = at_ < text.size();
  at_ += open_;  // the bracket
}

std::optional<DatasetRow> RowReader::Next() {
  while (at_ < text_.size() || open_) {
    const char* problem = nullptr;
    std::string_view row;
    switch (shape_) {
      case RowShape::kDocuments:
        row = Trim(NextDocument());
        break;
      case RowShape::kLines:
        row = Trim(NextLine());
        break;
      case RowShape::kArray:
        row = NextElement(&problem);
        break;
    }
    if (row.empty() && problem == nullptr) continue;
    const size_t begin =
        row.empty() ? text_.size() : static_cast<size_t>(row.data() - text_.data());
    const std::string_view before = text_.substr(counted_, begin - counted_);
    line_ += static_cast<uint64_t>(std::count(before.begin(), before.end(), '\n'));
    counted_ = begin;
    return DatasetRow{row, line_, problem};
  }
  return std::nullopt;
}

std::string_view RowReader::NextDocument() {
  const size_t begin = at_, end = std::min(text_.find(kDocumentSeparator, at_), text_.size());
  at_ = std::min(end + kDocumentSeparator.size(), text_.size());
  return text_.substr(begin, end - begin);
}

std::string_view RowReader::NextLine() {
  const size_t begin = at_, end = std::min(text_.find('\n', at_), text_.size());
  at_ = std::min(end + 1, text_.size());
  return text_.substr(begin, end - begin);
}

std::string_view RowReader::NextElement(const char** problem) {
  at_ = std::min(text_.find_first_not_of(kBlanks, at_), text_.size());
  if (open_ && comma_due_ && at_ < text_.size() && text_[at_] != ']') {
    if (text_[at_] == ',') {
      at_ = std::min(text_.find_first_not_of(kBlanks, at_ + 1), text_.size());
    } else {
      *problem = "a comma is missing before this row";
    }
  }
  comma_due_ = true;
  const size_t begin = at_;
  if (begin < text_.size() && open_ && text_[begin] == ',') {
    *problem = "a row is missing between two commas";
    return text_.substr(begin, 1);
  }
  if (begin == text_.size()) {
    if (open_) *problem = "the array is not closed: the file was cut off";
    open_ = false;
    return {};
  }
  if (!open_) {
    at_ = text_.size();
    *problem = "something follows the end of the array";
    return text_.substr(begin);
  }
  if (text_[at_] == ']') {
    open_ = false;
    ++at_;
    return {};
  }
  size_t depth = 0;
  bool in_string = false;
  for (; at_ < text_.size(); ++at_) {
    const char c = text_[at_];
    if (in_string) {
      at_ += c == '\\';
      in_string = c != '"' && c != '\n';
      if (c != '\n') continue;
      // No string of JSON has a line end: a quote too many spoils this row, not those after it.
      depth -= std::min(depth, ClosersAtEnd(text_.substr(begin, at_ - begin)));
      if (depth > 0) continue;
      comma_due_ = !Trim(text_.substr(begin, at_ - begin)).ends_with(',');
      break;
    } else if (c == '"') {
      in_string = true;
    } else if (c == '{' || c == '[') {
      ++depth;
    } else if (depth > 0 && (c == '}' || c == ']')) {
      if (--depth > 0) continue;
      ++at_;
      break;
    } else if (depth == 0 && (c == ',' || c == ']')) {
      break;
    }
  }
  at_ = std::min(at_, text_.size());
  if (depth > 0) {
    open_ = false;
    *problem = "the row is not closed before the end of the file";
  }
  return Trim(text_.substr(begin, at_ - begin));
}

}  // namespace edgewise::train
