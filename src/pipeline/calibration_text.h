// Calibration text: from a file to the token sequences that run through the model.
#pragma once

#include <cstdint>
#include <string>

#include "base/result.h"
#include "calibrate/walk.h"
#include "model/checkpoint.h"

namespace edgewise {

// Text that calibration runs through the model.
struct CalibrationText {
  std::string path;
  uint32_t context = 0;         // tokens of a sequence; 0: 512, at most the trained context
  uint64_t max_tokens = 65536;  // whole sequences until there are as many; 0: all
};

// Reads and tokenizes `text` with the model's tokenizer: documents where "<|endoftext|>" stands
// between them, else consecutive windows; BOS begins each sequence where the vocabulary asks for
// it. Errors: kNotFound, kIo, kInvalidArgument (too little text for one sequence), those of
// LoadVocab.
Result<TokenSequences> ReadCalibrationText(const Checkpoint& checkpoint,
                                           const std::string& tokenizer_path,
                                           const CalibrationText& text);

}  // namespace edgewise
