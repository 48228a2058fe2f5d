// Datasets: training files of the usual formats as tokens, with what of them is learned.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "text/tokenizer.h"
#include "train/corpus.h"

namespace edgewise::train {

// Rows are lines of a file (JSON Lines) or the elements of one JSON array, but for kText.
enum class DatasetFormat : uint8_t {
  kText,        // documents with "<|endoftext|>" between them
  kJsonLines,   // {"text"}
  kAlpaca,      // {"instruction", "input" (optional), "output" or "response"}
  kDolly,       // {"instruction", "context" (optional), "response"}
  kCompletion,  // {"prompt", "completion"}
  kShareGpt,    // {"conversations": [{"from": "system", "human" or "gpt", "value"}]}
  kChatMl,      // {"messages": [{"role": "system", "user" or "assistant", "content"}]}
};

// "text", "jsonl", "alpaca", "dolly", "completion", "sharegpt", "chatml" and back. Errors:
// kInvalidArgument, listing the names.
const char* DatasetFormatName(DatasetFormat format);
Result<DatasetFormat> ParseDatasetFormat(std::string_view name);

struct DatasetOptions {
  // None: by the keys of the first good row, or text where the file does not begin as JSON.
  std::optional<DatasetFormat> format = {};
  bool strict = false;                // a bad row is an error
  uint64_t max_row_bytes = 16 << 20;  // of a row of JSON
};

struct BadRow {
  uint64_t line;  // where it begins, from 1
  std::string problem;
};

struct Dataset {
  DatasetFormat format;
  Corpus corpus;  // a document for each good row
  uint64_t bad_row_count = 0;
  std::vector<BadRow> bad_rows;  // the first 20
};

// Reads a training file row by row. Texts are learned whole, of prompts, instructions and
// conversations the answers (train/example_encoder.h). A row that is malformed, too long, empty or
// of another format is left out and reported. `chat_template` is the model's, or empty. Errors:
// kNotFound, kIo, kBadData (no row is good); if `strict`, that of the first bad row, with its line.
Result<Dataset> ReadDataset(const std::string& path, const Tokenizer& tokenizer,
                            std::string_view chat_template, const DatasetOptions& options = {});

// Reads a file's content. Errors: the same, but kNotFound and kIo.
Result<Dataset> ParseDataset(std::string_view content, const Tokenizer& tokenizer,
                             std::string_view chat_template, const DatasetOptions& options = {});

}  // namespace edgewise::train
