#include "pipeline/layer_journal.h"

#include "base/check.h"
#include "base/file.h"
#include "base/strings.h"
#include "pipeline/keep_scales.h"
#include "pipeline/output_path.h"

namespace edgewise {
namespace {

constexpr uint64_t kMaxLogBytes = 64u << 20;

Json LogLine(const train::LayerReport& report) {
  Json line{JsonObject{}};
  line.Set("layer", report.layer).Set("first_error", report.first_error);
  line.Set("error", report.error)
      .Set("learned", report.learned)
      .Set("skipped_steps", report.skipped_steps);
  line.Set("seconds", report.seconds);
  return line;
}

Result<JsonArray> ReadLog(const std::string& path) {
  JsonArray log;
  if (!FileExists(path)) return log;
  EW_TRY(const std::string text, ReadFile(path, kMaxLogBytes));
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    EW_TRY(Json line, ParseJson(text.substr(begin, end - begin)).In(path));
    for (const char* key :
         {"layer", "first_error", "error", "learned", "skipped_steps", "seconds"}) {
      if (line.Find(key) != nullptr) continue;
      return MakeError(Code::kBadData, "%s: line %zu has no %s; pass --force to begin anew",
                       path.c_str(), log.size() + 1, key);
    }
    log.push_back(std::move(line));
    begin = end + 1;
  }
  return log;
}

}  // namespace

std::string JsonLines(const JsonArray& log) {
  std::string text;
  for (const Json& line : log) text += line.Dump() + "\n";
  return text;
}

LayerJournal::LayerJournal(TensorJournal tensors, std::span<const TensorPlan> plan,
                           std::string log_path)
    : tensors_(std::move(tensors)), log_path_(std::move(log_path)) {
  for (size_t i = 0; i < plan.size(); ++i) entries_[plan[i].name] = {i, plan[i].to};
}

Result<LayerJournal> LayerJournal::Open(const std::string& folder,
                                        std::span<const TensorPlan> plan) {
  EW_TRY(TensorJournal tensors, TensorJournal::Open(TensorsPath(folder), plan));
  LayerJournal journal(std::move(tensors), plan, folder + "/log.jsonl");
  EW_TRY(journal.log_, ReadLog(journal.log_path_));
  return journal;
}

std::vector<float> LayerJournal::Find(const train::LayerLayout& layer) const {
  std::vector<float> values(layer.size);
  for (const train::Parameter& parameter : layer.parameters) {
    const auto& [index, format] = entries_.at(parameter.name);
    const JournalRecord* record = tensors_.Find(index);
    if (record == nullptr) return {};
    Info(format).decode(record->bytes.data(), values.data() + parameter.offset,
                        parameter.shape.elements());
  }
  return values;
}

Status LayerJournal::Keep(const train::LayerLayout& layer, const train::LayerReport& report,
                          std::span<const float> learned, const train::BlockScales* scales,
                          ThreadPool* pool) {
  EW_CHECK(log_.size() == report.layer);
  log_.push_back(LogLine(report));
  EW_TRY(WriteTextFile(log_path_, JsonLines(log_)));
  if (scales != nullptr) {
    const auto index_of = [&](const std::string& name) { return entries_.at(name).first; };
    EW_TRY(KeepScales(*scales, learned, index_of, &tensors_));
  }
  for (const train::Parameter& parameter : layer.parameters) {
    const auto& [index, format] = entries_.at(parameter.name);
    if (tensors_.Holds(index)) continue;  // scaled above, or of a layer that was not kept whole
    const auto values = learned.subspan(parameter.offset, parameter.shape.elements());
    const TensorView view{DType::kF32, parameter.shape,
                          reinterpret_cast<const std::byte*>(values.data()), values.size_bytes()};
    EW_TRY(tensors_.Begin(index));
    EW_TRY(const EncodeError error,
           EncodeTensor(parameter.name, view, format, {}, pool,
                        [&](std::span<const std::byte> bytes) { return tensors_.Write(bytes); }));
    EW_TRY(tensors_.End(error));
  }
  return Ok{};
}

}  // namespace edgewise
