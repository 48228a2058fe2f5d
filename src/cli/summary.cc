#include "cli/summary.h"

#include <CLI/CLI.hpp>
#include <algorithm>

#include "base/strings.h"
#include "cli/output.h"
#include "quant/dtype.h"

namespace edgewise::cli {
namespace {

std::string PackingText(const PackingCount& count) {
  if (count.packed == 0) return "";
  std::string text = Format("%zu matrices packed", count.packed);
  if (count.left > 0) {
    text += Format("; %zu stay in rows and are packed at load (--verbose says why)", count.left);
  }
  return text + "\n";
}

std::string PlanTable(const ConvertSummary& summary) {
  std::vector<std::vector<std::string>> rows = {
      {"tensor", "shape", "from", "to", "bytes", "rel. error", "note"}};
  const bool pruned = summary.density < 1;
  const bool predicted = std::any_of(summary.tensors.begin(), summary.tensors.end(),
                                     [](const auto& tensor) { return tensor.output_error > 0; });
  if (pruned) rows[0].insert(rows[0].end() - 2, "kept");
  if (predicted) rows[0].insert(rows[0].end() - 1, "output error");
  for (const ConvertedTensor& tensor : summary.tensors) {
    std::vector<std::string> row = {tensor.name, tensor.shape.ToString(), Info(tensor.from).name,
                                    FormatName(tensor.to, tensor.layout),
                                    std::to_string(tensor.bytes)};
    if (pruned) row.push_back(Format("%.2f %%", 100 * tensor.density));
    row.push_back(Format("%.5f", tensor.relative_rmse));
    if (predicted) row.push_back(Format("%.5f", tensor.output_error));
    row.push_back(tensor.reason);
    rows.push_back(std::move(row));
  }
  return TextTable(rows);
}

// What went from a layer, "3 of 8 (12.0 % of scores, error 0.105)"; "-" for nothing.
std::string LossText(const UnitLoss& loss, uint32_t of) {
  if (loss.removed.empty()) return "-";
  const std::string error = loss.error > 0 ? Format(", error %.4f", loss.error) : std::string();
  return Format("%zu of %u (%.2f %% of scores%s)", loss.removed.size(), of, 100 * loss.score,
                error.c_str());
}

std::string LossTable(const StructureSummary& structure) {
  std::vector<std::vector<std::string>> rows = {{"layer", "head groups gone", "neurons gone"}};
  for (const uint32_t layer : structure.removed_layers) {
    rows.push_back({std::to_string(layer), "the whole layer", ""});
  }
  for (const LayerLoss& loss : structure.layers) {
    rows.push_back({std::to_string(loss.layer), LossText(loss.heads, structure.before.groups),
                    LossText(loss.ffn, structure.before.neurons)});
  }
  return rows.size() > 1 ? TextTable(rows) : std::string();
}

std::string StructureText(const StructureSummary& structure) {
  const StructureSizes &before = structure.before, &after = structure.after;
  std::string text = Format(
      "%u of %u layers, %u of %u channels, %u of %u head groups, %u of %u neurons are left\n",
      after.layers, before.layers, after.channels, before.channels, after.groups, before.groups,
      after.neurons, before.neurons);
  if (structure.channel_score > 0) {
    text += Format("%.2f %% of the scores went with channels\n", 100 * structure.channel_score);
  }
  for (const std::string& note : structure.notes) text += note + "\n";
  return text;
}

std::string CostText(const ConvertSummary& summary) {
  if (summary.estimate) return EstimateText(*summary.estimate);
  return Format("%s, peak memory %s", FormatSeconds(summary.seconds).c_str(),
                FormatBytes(summary.peak_rss_bytes).c_str());
}

}  // namespace

std::string EstimateText(const Cost& estimate) {
  return Format("about %s, peak memory about %s", FormatSeconds(estimate.seconds).c_str(),
                FormatBytes(estimate.bytes).c_str());
}

void AddOutputFlags(CLI::App& app, bool* force, bool* dry_run, bool* verbose) {
  app.add_flag("--force", *force, "Replace an existing output file");
  app.add_flag(
      "--dry-run", *dry_run,
      "Print the plan, the exact size, and time and memory by short trials; write nothing");
  app.add_flag("--verbose", *verbose, "Print a line for each tensor");
}

Status PrintSummary(const char* verb, const ConvertSummary& summary, bool dry_run, bool verbose,
                    const Common& common) {
  if (common.json) {
    return PrintJson(verb, Json(SummaryToJson(summary)).Set("dry_run", dry_run));
  }
  if (dry_run || verbose) {
    EW_TRY(Print(PlanTable(summary)));
    if (summary.structure) EW_TRY(Print(LossTable(*summary.structure)));
  }
  if (common.quiet) return Ok{};
  return Print(
      Format("%s%s: %s, %.3f bits per weight (%zu tensors, %s before; %s)\n",
             dry_run ? "would write " : "", summary.output.c_str(),
             FormatBytes(summary.bytes).c_str(), summary.bits_per_weight, summary.tensors.size(),
             FormatBytes(summary.source_bytes).c_str(), CostText(summary).c_str()) +
      (summary.predicted_kl > 0
           ? Format("predicted KL divergence: %.5f nats per token\n", summary.predicted_kl)
           : std::string()) +
      (summary.density < 1
           ? Format("%.2f %% of the weights of linear layers are left\n", 100 * summary.density)
           : std::string()) +
      (summary.structure ? StructureText(*summary.structure) : std::string()) +
      PackingText(summary.packing));
}

}  // namespace edgewise::cli
