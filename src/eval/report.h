// Report: compressed variants of one model side by side, as one HTML page, Markdown, plain text or
// JSON.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/json.h"
#include "eval/html_page.h"

namespace edgewise {

// One variant. A figure that was not measured stays empty and is shown as a dash.
struct ReportRow {
  std::string name;   // "q4_k_m"
  bool base = false;  // the unquantized model that the others are compared with
  std::optional<uint64_t> file_bytes;
  std::optional<double> bits_per_weight;  // of the whole file
  std::optional<double> perplexity;
  std::optional<double> ppl_ratio;  // to the base
  std::optional<double> kl_mean;    // nats
  std::optional<double> kl_p99;
  std::optional<double> top1_agreement;  // 0..1
  std::optional<double> prefill_tokens_per_s;
  std::optional<double> decode_tokens_per_s;
  std::optional<double> decode_p99_ms;
  std::optional<uint64_t> peak_rss_bytes;
};

struct ReportData {
  std::string title;                  // "edgewise-stories-3M"
  std::string summary;                // one or two sentences above everything else
  std::vector<ReportFact> headline;   // up to four large figures: {"Smaller", "3.4x"}
  std::vector<ReportRow> rows;        // in the order shown
  std::vector<ReportFact> method;     // how each column was measured: convention, text, tokens
  std::vector<ReportFact> machine;    // CPU, threads, bandwidth, ...
  std::vector<ReportFact> versions;   // tool, compiler, hashes of the inputs
  std::vector<std::string> commands;  // that give the same figures again
  std::vector<std::string> notes;     // limits the reader must know
};

// Returns one self-contained page: inline CSS and SVG, no script, nothing loaded. All text from
// `data` is escaped.
std::string ReportHtml(const ReportData& data);

// Returns the rows as a Markdown table, pipes and markup in names escaped.
std::string ReportMarkdown(const ReportData& data);

// Returns the rows as aligned columns for a terminal; control bytes in names are replaced.
std::string ReportText(const ReportData& data);

// Returns everything in `data`; figures that are absent are null.
Json ToJson(const ReportData& data);

}  // namespace edgewise
