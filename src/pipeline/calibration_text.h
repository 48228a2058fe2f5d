// Calibration text: from a file to the token sequences that run through the model.
#pragma once

#include <cstdint>
#include <string>

#include "base/result.h"
#include "calibrate/walk.h"
#include "model/checkpoint.h"
#include "pipeline/convert.h"

namespace edgewise {

// Reads and tokenizes `text` with the model's tokenizer (BOS at the start of each sequence where the
// vocabulary asks for it). Errors: kNotFound, kIo, kInvalidArgument (too little text for one
// sequence), those of LoadVocab.
Result<TokenSequences> ReadCalibrationText(const Checkpoint& checkpoint,
                                           const std::string& tokenizer_path,
                                           const CalibrationText& text);

}  // namespace edgewise
