// What a training run did, as a page: its curves and its settings.
#pragma once

#include <string>
#include <string_view>

#include "base/json.h"
#include "base/result.h"
#include "pipeline/train_model.h"

namespace edgewise {

// Returns one self-contained page; all text is escaped. `log`: the lines of OUT.log.jsonl.
// `settings`: an object, shown member by member. Errors: kBadData (a line that is no object with
// the members of one, by its number).
Result<std::string> TrainingHtml(const TrainSummary& summary, const Json& settings,
                                 std::string_view log);

}  // namespace edgewise
