#include "pipeline/fit_text.h"

#include <unordered_map>

#include "base/strings.h"
#include "eval/windows.h"

namespace edgewise {

Result<FitTexts> SplitText(std::string_view text) {
  FitTexts parts;
  const std::string separator = TextOptions().separator;
  if (text.find(separator) == text.npos) {
    const size_t line_end = text.find('\n', text.size() / 2);
    if (line_end != text.npos) {
      parts.calibration = text.substr(0, line_end + 1);
      parts.evaluation = text.substr(line_end + 1);
    }
    if (!Trim(parts.calibration).empty() && !Trim(parts.evaluation).empty()) return parts;
    return MakeError(Code::kInvalidArgument,
                     "no line ends in the middle of the text, where it would be cut into a part to "
                     "calibrate with and one to measure on; give more lines, or documents with %s "
                     "between them",
                     separator.c_str());
  }
  std::unordered_map<std::string_view, bool> evaluates;  // by document
  for (const std::string_view piece : Split(text, separator)) {
    const std::string_view document = Trim(piece);
    if (document.empty()) continue;
    const auto [known, added] = evaluates.emplace(document, evaluates.size() % 2 == 1);
    std::string& part = known->second ? parts.evaluation : parts.calibration;
    part += std::string(document) + "\n" + separator + "\n";
    ++(known->second ? parts.evaluation_documents : parts.calibration_documents);
  }
  if (evaluates.size() >= 2) return parts;
  return MakeError(Code::kInvalidArgument,
                   "the text holds %zu different documents; at least 2 are needed, to calibrate "
                   "with and to measure on",
                   evaluates.size());
}

}  // namespace edgewise
