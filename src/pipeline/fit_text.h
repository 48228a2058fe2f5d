// One text in two that share nothing: quality measured on what calibration has seen would flatter.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.h"

namespace edgewise {

struct FitTexts {
  std::string calibration, evaluation;
  uint64_t calibration_documents = 0, evaluation_documents = 0;  // 0: a text without documents
};

// Splits `text` at "<|endoftext|>" and gives documents to calibration and evaluation in turn, one
// that was there before to where the first of its kind went; a text without the separator is cut
// after the line in its middle. Errors: kInvalidArgument (fewer than two different documents, or
// two lines).
Result<FitTexts> SplitText(std::string_view text);

}  // namespace edgewise
