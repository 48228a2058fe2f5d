#include "pipeline/fit.h"

#include <algorithm>
#include <filesystem>
#include <limits>
#include <memory>
#include <numeric>
#include <utility>

#include "base/file.h"
#include "base/process.h"
#include "base/sha256.h"
#include "base/strings.h"
#include "base/thread_pool.h"
#include "engine/engine.h"
#include "eval/kl.h"
#include "eval/linear_timer.h"
#include "formats/gguf.h"
#include "pipeline/compress.h"
#include "pipeline/fit_recipe.h"
#include "pipeline/fit_report.h"
#include "pipeline/fit_space.h"
#include "pipeline/fit_text.h"
#include "pipeline/output_path.h"
#include "pipeline/pass.h"
#include "pipeline/quality_card.h"
#include "pipeline/run_journal.h"
#include "pipeline/source_hash.h"
#include "pipeline/step_shape.h"

namespace edgewise {
namespace {

constexpr uint64_t kMaxTextBytes = uint64_t{1} << 30;
constexpr uint64_t kMaxKeptBytes = 1u << 20;

// What `make` gives, or gave in an earlier run.
template <class Make>
Result<Json> Kept(const std::string& path, Make make) {
  if (FileExists(path)) {
    EW_TRY(const std::string text, ReadFile(path, kMaxKeptBytes));
    return ParseJson(text).In(path);
  }
  EW_TRY(Json json, make());
  EW_TRY(WriteTextFile(path, json.Dump()));
  return json;
}

Result<double> Member(const Json& object, const char* key) {
  const Json* member = object.Find(key);
  const auto value = member ? member->AsDouble() : std::nullopt;
  if (value) return *value;
  return MakeError(Code::kBadData,
                   "lacks the number %s; remove the file, or begin anew with --force", key);
}

Result<FitFigures> ReadFigures(const Json& object) {
  FitFigures figures;
  EW_TRY(figures.step_ms, Member(object, "decode_p50_ms"));
  EW_TRY(figures.p99_ms, Member(object, "decode_p99_ms"));
  EW_TRY(const double memory, Member(object, "peak_rss_bytes"));
  figures.memory_bytes = static_cast<uint64_t>(memory);
  return figures;
}

Json FiguresJson(const FitFigures& figures) {
  return Json()
      .Set("decode_p50_ms", figures.step_ms)
      .Set("decode_p99_ms", figures.p99_ms)
      .Set("peak_rss_bytes", figures.memory_bytes);
}

// What predictions start from: a model of the structure of its candidates, in a format that is
// written quickly.
struct Reference {
  FitCandidate candidate;
  bool used = false;
  StepShape shape;
  FitFigures figures;
  double linear_ms = 0;  // of a step
};

// The search, whose files stand in `folder`: the journal, or for a plan a work folder.
class Search {
 public:
  Search(const std::string& model, const FitOptions& options, Progress* progress)
      : options_(options), progress_(progress) {
    summary_.model = model;
    summary_.outputs = OutputsOf(options.output);
    summary_.budget = options.budget;
  }

  // Finds what cannot work before anything is written.
  Status Prepare();
  Status PlanCandidates(const std::string& folder, bool estimate);
  Result<Json> RunIdentity() const;
  Status Begin(const std::string& folder);
  Status Predict();
  Status HalveByKl();
  Status MeasureFinalists();
  Status WriteChosen();
  FitSummary& summary() { return summary_; }
  auto reference_count() const {
    return std::ranges::count_if(references_, [](const Reference& r) { return r.used; });
  }

 private:
  std::string File(const std::string& name) const { return folder_ + "/" + name; }
  void SetReferences();
  FitRecipePaths PathsIn(const std::string& folder) const;
  Result<Recipe> RecipeOf(const FitCandidate& candidate, const std::string& folder,
                          const std::string& output) const;
  Status Make(const FitCandidate& candidate, const std::string& output, bool measure) const;
  Result<std::string> ModelOf(const FitCandidate& candidate) const;
  Result<std::unique_ptr<Engine>> Load(const std::string& path, bool base) const;
  Result<uint32_t> CountWindows(Engine* base, const std::string& text, const char* part) const;
  Result<LinearTimer*> Timer();
  void ReleaseTimer();
  Result<Json> MeasureReference(const Reference& reference);
  Status PredictOne(size_t index);
  Status PredictMade(size_t index);
  Status MeasureRound(size_t candidate, size_t round);
  Status MeasureSpeed(size_t candidate);

  const FitOptions& options_;
  Progress* progress_;
  FitSummary summary_;
  std::string folder_;
  FitTexts texts_;
  uint32_t windows_ = 0;  // of the evaluation text
  std::optional<ModelSpec> spec_;
  std::vector<Reference> references_;
  std::vector<size_t> reference_of_;  // of each candidate; the first is the whole model
  std::vector<StepShape> shapes_;     // of the candidates
  std::optional<ThreadPool> pool_;
  std::optional<LinearTimer> timer_;
  std::vector<size_t> alive_;
  std::unique_ptr<Engine> base_;
};

FitRecipePaths Search::PathsIn(const std::string& folder) const {
  const FitOutputs& outputs = summary_.outputs;
  return {Absolute(summary_.model), Absolute(options_.tokenizer_path),
          Absolute(folder + "/" + NameOf(outputs.calibration)),
          Absolute(folder + "/" + NameOf(outputs.evaluation))};
}

Result<Recipe> Search::RecipeOf(const FitCandidate& candidate, const std::string& folder,
                                const std::string& output) const {
  EW_TRY(Recipe recipe,
         RecipeFromJson(FitRecipe(candidate, PathsIn(folder)), folder, candidate.name));
  recipe.output = output;
  return recipe;
}

Result<std::unique_ptr<Engine>> Search::Load(const std::string& path, bool base) const {
  EngineOptions engine;
  engine.threads = options_.threads;
  if (base) engine.tokenizer_path = options_.tokenizer_path;
  return Engine::Load(path, engine);
}

TextOptions WindowsOf(const FitTexts& texts, const FitOptions& options) {
  TextOptions windows;
  windows.convention =
      texts.evaluation_documents > 0 ? TextConvention::kDocuments : TextConvention::kLlamaCpp;
  windows.kv_format = options.kv_format;
  return windows;
}

Result<uint32_t> Search::CountWindows(Engine* base, const std::string& text,
                                      const char* part) const {
  EW_TRY(const ScoredText cut,
         CutText(base->tokenizer(), base->model().spec().context_length, text,
                 WindowsOf(texts_, options_))
             .In(Format("%s: the part to %s", options_.text_path.c_str(), part)));
  return static_cast<uint32_t>(cut.windows.size());
}

void Search::SetReferences() {
  references_.emplace_back().candidate = ReferenceOf({});
  references_.front().used = true;
  for (const FitCandidate& candidate : summary_.candidates) {
    FitCandidate reference = ReferenceOf(candidate);
    const auto same = std::ranges::find_if(references_, [&](const Reference& other) {
      return other.candidate.passes.Dump() == reference.passes.Dump();
    });
    reference_of_.push_back(static_cast<size_t>(same - references_.begin()));
    if (same != references_.end()) continue;
    reference.name += Format("-%zu", references_.size());
    references_.emplace_back().candidate = std::move(reference);
  }
}

Status Search::Prepare() {
  const FitBudget& budget = options_.budget;
  if (budget.memory_bytes == 0 && budget.file_bytes == 0 && !(budget.p99_ms > 0)) {
    return MakeError(Code::kInvalidArgument,
                     "no budget was given: name at least one of --memory, --size and --p99");
  }
  EW_TRY(summary_.candidates, FitSpace(options_.candidates, budget.file_bytes));
  SetReferences();
  EW_TRY(const std::string text, ReadFile(options_.text_path, kMaxTextBytes));
  EW_TRY(texts_, SplitText(text).In(options_.text_path));
  EW_TRY(base_, Load(summary_.model, true));
  spec_ = base_->model().spec();
  EW_TRY(const uint32_t calibration,
         CountWindows(base_.get(), texts_.calibration, "calibrate with"));
  EW_TRY(windows_, CountWindows(base_.get(), texts_.evaluation, "measure on"));
  summary_.texts =
      texts_.evaluation_documents > 0
          ? Format(
                "documents of %s in turn: %llu to calibrate with, %llu to measure on; none is "
                "in both",
                NameOf(options_.text_path).c_str(),
                static_cast<unsigned long long>(texts_.calibration_documents),
                static_cast<unsigned long long>(texts_.evaluation_documents))
          : Format(
                "%s cut in its middle: %u windows to calibrate with, the %u after them to "
                "measure on",
                NameOf(options_.text_path).c_str(), calibration, windows_);
  return Ok{};
}

// Exact sizes, and with `estimate` how long it takes to make and to measure all candidates.
Status Search::PlanCandidates(const std::string& folder, bool estimate) {
  std::string first_problem;
  size_t possible = 0;
  const auto plan = [&](FitCandidate* candidate, StepShape* shape) -> Status {
    EW_TRY(const Recipe recipe,
           RecipeOf(*candidate, folder, folder + "/" + candidate->name + ".gguf"));
    EW_TRY(const CompressSummary summary,
           PlanCompression(recipe, options_.threads, estimate, progress_));
    candidate->file_bytes = summary.bytes;
    candidate->formats_open = summary.target_bytes > 0;
    *shape = ShapeOf(*spec_, summary.tensors);
    if (summary.estimate) summary_.estimated_seconds += summary.estimate->seconds;
    return Ok{};
  };
  shapes_.resize(summary_.candidates.size());
  for (size_t i = 0; i < shapes_.size(); ++i) {
    FitCandidate& candidate = summary_.candidates[i];
    progress_->Update("planning", i, shapes_.size());
    const Status status = plan(&candidate, &shapes_[i]);
    if (status) {
      ++possible;
      references_[reference_of_[i]].used = true;
      continue;
    }
    const Code code = status.error().code;
    if (code != Code::kInvalidArgument && code != Code::kUnsupported && code != Code::kBadData) {
      return status;
    }
    candidate.left_out = "cannot be made: " + status.error().message;
    if (first_problem.empty()) first_problem = status.error().message;
  }
  if (possible == 0) {
    return MakeError(Code::kInvalidArgument, "%s: no candidate can be made of it: %s",
                     summary_.model.c_str(), first_problem.c_str());
  }
  for (Reference& reference : references_) {
    if (reference.used) EW_TRY(plan(&reference.candidate, &reference.shape));
  }
  return Ok{};
}

// What decides the measurements; a resumed run may have another budget and other candidates.
Result<Json> Search::RunIdentity() const {
  EW_TRY(const auto files, SourceFiles(base_->model().checkpoint(), options_.tokenizer_path));
  EW_TRY(const SourceHash hash, HashFiles(files, [&] { return progress_->Cancelled(); }));
  return Json()
      .Set("command", "fit")
      .Set("version", EDGEWISE_VERSION)
      .Set("machine", CpuModelName())
      .Set("kernels", kernels::Active().name)
      .Set("model", hash.digest)
      .Set("calibration text", Sha256Hex(std::as_bytes(std::span(texts_.calibration))))
      .Set("evaluation text", Sha256Hex(std::as_bytes(std::span(texts_.evaluation))))
      .Set("setting of the measurements", options_.bench_settings);
}

Status Search::Begin(const std::string& folder) {
  folder_ = folder;
  const FitRecipePaths paths = PathsIn(folder);
  EW_TRY(WriteTextFile(paths.calibration, texts_.calibration));
  return WriteTextFile(paths.evaluation, texts_.evaluation);
}

Status Search::Make(const FitCandidate& candidate, const std::string& output, bool measure) const {
  EW_TRY(const Recipe recipe, RecipeOf(candidate, folder_, output));
  CompressOptions compress;
  compress.threads = options_.threads;
  compress.resume = true;
  compress.shared_folder = folder_;
  compress.measure = measure;
  EW_TRY(Compress(recipe, compress, progress_).In(candidate.name));
  return Ok{};
}

// The file of a candidate, made if it is not there.
Result<std::string> Search::ModelOf(const FitCandidate& candidate) const {
  const std::string path = File(candidate.name + ".gguf");
  if (!FileExists(path)) EW_TRY(Make(candidate, path, false));
  return path;
}

Result<Json> Search::MeasureReference(const Reference& reference) {
  EW_TRY(const std::string path, ModelOf(reference.candidate));
  ReleaseTimer();
  const double start = NowSeconds();
  EW_TRY(Json json, options_.bench(path).In("measuring the " + reference.candidate.name));
  json.Set("bench_seconds", NowSeconds() - start);
  EW_TRY(LinearTimer * timer, Timer());
  EW_TRY(const double seconds, LinearSeconds(reference.shape, timer));
  std::filesystem::remove(path);
  return json.Set("format", kReferenceFormat).Set("linear_ms", 1e3 * seconds);
}

// Its memory would count in what is measured, so it goes before.
Result<LinearTimer*> Search::Timer() {
  if (!timer_) {
    pool_.emplace(options_.threads > 0 ? options_.threads : ThreadPool::AvailableCpus());
    uint64_t largest = references_.front().shape.read_bytes;
    for (const StepShape& shape : shapes_) largest = std::max(largest, shape.read_bytes);
    EW_TRY(LinearTimer timer, LinearTimer::Create(largest, &*pool_));
    timer_.emplace(std::move(timer));
  }
  return &*timer_;
}

void Search::ReleaseTimer() {
  timer_.reset();
  pool_.reset();
}

Status Search::Predict() {
  base_.reset();  // its memory and threads would count
  for (Reference& reference : references_) {
    if (!reference.used) continue;
    const std::string path = File(reference.candidate.name + ".json");
    EW_TRY(Json measured, Kept(path, [&] { return MeasureReference(reference); }));
    EW_TRY(reference.figures, ReadFigures(measured).In(path));
    EW_TRY(reference.linear_ms, Member(measured, "linear_ms").In(path));
    if (&reference == &references_.front()) summary_.reference = std::move(measured);
  }
  std::vector<FitCandidate>& all = summary_.candidates;
  for (size_t i = 0; i < all.size(); ++i) {
    if (!all[i].left_out.empty() || all[i].formats_open) continue;
    progress_->Update("timing kernels", i, all.size());
    if (progress_->Cancelled()) return MakeError(Code::kCancelled, "stopped before the end");
    EW_TRY(PredictOne(i));
  }
  // Until their formats are known: as those of the next sizes, or as the reference.
  for (FitCandidate& candidate : all) {
    if (!candidate.left_out.empty() || !candidate.formats_open) continue;
    candidate.predicted =
        Interpolate(all, candidate.file_bytes).value_or(references_.front().figures);
  }
  return Ok{};
}

// What a candidate takes is what the reference of its structure was measured to take, but for its
// weights: the time of its linear layers, and their bytes.
Status Search::PredictOne(size_t index) {
  FitCandidate& candidate = summary_.candidates[index];
  const StepShape& shape = shapes_[index];
  const Reference& reference = references_[reference_of_[index]];
  const auto predict = [&]() -> Result<Json> {
    EW_TRY(LinearTimer * timer, Timer());
    EW_TRY(const double seconds, LinearSeconds(shape, timer));
    FitFigures figures;
    figures.step_ms = reference.figures.step_ms - reference.linear_ms + 1e3 * seconds;
    figures.p99_ms = figures.step_ms * reference.figures.p99_ms / reference.figures.step_ms;
    figures.memory_bytes =
        reference.figures.memory_bytes + shape.resident_bytes - reference.shape.resident_bytes;
    return FiguresJson(figures);
  };
  const std::string path = File(candidate.name + ".predicted.json");
  EW_TRY(const Json json, Kept(path, predict));
  EW_TRY(candidate.predicted, ReadFigures(json).In(path));
  return Ok{};
}

// The prediction of a candidate whose formats were chosen as it was made.
Status Search::PredictMade(size_t index) {
  const FitCandidate& candidate = summary_.candidates[index];
  if (!FileExists(File(candidate.name + ".predicted.json"))) {
    EW_TRY(const std::string path, ModelOf(candidate));
    EW_TRY(Checkpoint model, Checkpoint::Open(path));
    PassState state(std::move(model));
    EW_TRY(TakeFile(path, &state));
    shapes_[index] = ShapeOf(*spec_, state.tensors);
  }
  return PredictOne(index);
}

// KL divergence of a candidate on the text of `round`.
Status Search::MeasureRound(size_t candidate, size_t round) {
  FitCandidate& entry = summary_.candidates[candidate];
  TextOptions windows = WindowsOf(texts_, options_);
  windows.max_windows = summary_.rounds[round];
  const std::string path = File(Format("%s.kl-%u.json", entry.name.c_str(), windows.max_windows));
  const auto measure = [&]() -> Result<Json> {
    EW_TRY(const std::string file, ModelOf(entry));
    EW_TRY(const auto model, Load(file, false));
    if (!base_) {
      EW_TRY(base_, Load(summary_.model, true));
    }
    EW_TRY(
        const KlResult kl,
        MeasureKl(base_.get(), model.get(), texts_.evaluation, windows, progress_).In(entry.name));
    return ToJson(kl);
  };
  EW_TRY(const Json json, Kept(path, measure));
  FitKl kl;
  EW_TRY(kl.mean, Member(json, "kl_mean").In(path));
  EW_TRY(kl.std_error, Member(json, "kl_mean_stderr").In(path));
  EW_TRY(kl.top1_agreement, Member(json, "top1_agreement").In(path));
  EW_TRY(const double tokens, Member(json, "tokens").In(path));
  kl.tokens = static_cast<uint64_t>(tokens);
  entry.kl.push_back(kl);
  return Ok{};
}

Status Search::HalveByKl() {
  alive_ = ScreenCandidates(options_.budget, &summary_.candidates);
  summary_.rounds = RoundWindows(alive_.size(), windows_);
  for (size_t round = 0; round < summary_.rounds.size(); ++round) {
    for (const size_t i : alive_) {
      EW_TRY(MeasureRound(i, round));
      if (round == 0 && summary_.candidates[i].formats_open) EW_TRY(PredictMade(i));
    }
    if (round + 1 == summary_.rounds.size()) break;
    const std::vector<size_t> kept = HalveCandidates(summary_.candidates, alive_, round);
    for (const size_t i : alive_) {
      if (std::binary_search(kept.begin(), kept.end(), i)) continue;
      std::filesystem::remove(File(summary_.candidates[i].name + ".gguf"));
    }
    alive_ = kept;
  }
  base_.reset();
  ReleaseTimer();
  return Ok{};
}

Status Search::MeasureSpeed(size_t candidate) {
  FitCandidate& entry = summary_.candidates[candidate];
  const std::string path = File(entry.name + ".bench.json");
  const auto measure = [&]() -> Result<Json> {
    EW_TRY(const std::string file, ModelOf(entry));
    return options_.bench(file).In("measuring " + entry.name);
  };
  EW_TRY(const Json json, Kept(path, measure));
  EW_TRY(entry.measured, ReadFigures(json).In(path));
  return Ok{};
}

// Where no finalist meets the budget as measured, those that fell out are taken up again, the one
// that is predicted to fit best first.
Status Search::MeasureFinalists() {
  std::vector<FitCandidate>& all = summary_.candidates;
  for (size_t i = 0; i < alive_.size(); ++i) {
    progress_->Update("measuring speed", i, alive_.size());
    EW_TRY(MeasureSpeed(alive_[i]));
  }
  for (;;) {
    summary_.chosen = ChooseCandidate(options_.budget, all);
    std::optional<size_t> next;
    const auto share = [&](size_t i) {
      return BudgetShare(options_.budget, all[i].file_bytes, all[i].predicted);
    };
    for (size_t i = 0; i < all.size(); ++i) {
      if (all[i].measured || !all[i].left_out.empty()) continue;
      if (!next || share(i) < share(*next)) next = i;
    }
    if (summary_.chosen || !next) break;
    EW_TRY(MeasureSpeed(*next));
    while (all[*next].kl.size() < summary_.rounds.size()) {
      EW_TRY(MeasureRound(*next, all[*next].kl.size()));
    }
    std::filesystem::remove(File(all[*next].name + ".gguf"));
    base_.reset();
  }
  if (!summary_.chosen) summary_.shortfall = DescribeShortfall(options_.budget, all);
  std::vector<size_t> measured;
  std::vector<Objectives> points;
  for (size_t i = 0; i < all.size(); ++i) {
    if (!all[i].measured) continue;
    measured.push_back(i);
    points.push_back({static_cast<double>(all[i].file_bytes), all[i].kl.back().mean,
                      all[i].measured->step_ms, all[i].measured->p99_ms});
  }
  for (const size_t i : ParetoFront(points)) summary_.front.push_back(measured[i]);
  return Ok{};
}

std::string FinishingPath(const std::string& folder) { return folder + "/" + kFinishingFile; }

// From the moment that finishing.json stands there, files under the outputs' names are ours, so
// that a run killed after it goes on; the model comes last.
Status Search::WriteChosen() {
  const FitCandidate& chosen = summary_.candidates[*summary_.chosen];
  const FitOutputs& outputs = summary_.outputs;
  const std::string made = File(chosen.name + ".final.gguf"), finishing = FinishingPath(folder_);
  bool same = false;  // a run before this one was finishing this candidate
  if (FileExists(finishing)) {
    EW_TRY(const std::string name, ReadFile(finishing, kMaxKeptBytes));
    same = name == Json(chosen.name).Dump();
  }
  const bool in_place = same && !FileExists(made) && FileExists(outputs.model);
  if (!in_place && !FileExists(made)) EW_TRY(Make(chosen, made, true));
  {
    EW_TRY(const GgufFile file, GgufFile::Open(in_place ? outputs.model : made));
    EW_TRY(summary_.card, FindCard(file.metadata()));
  }
  EW_TRY(WriteTextFile(finishing, Json(chosen.name).Dump()));
  EW_TRY(WriteTextFile(outputs.calibration, texts_.calibration));
  EW_TRY(WriteTextFile(outputs.evaluation, texts_.evaluation));
  EW_TRY(WriteTextFile(outputs.recipe,
                       ChosenRecipeText(chosen, outputs, summary_.model, options_.tokenizer_path)));
  EW_TRY(WriteTextFile(outputs.report, FitHtml(summary_)));
  return in_place ? Status(Ok{}) : RenameFile(made, outputs.model);
}

Status CheckOutputs(const std::string& model, const FitOptions& options, bool overwrite) {
  const FitOutputs outputs = OutputsOf(options.output);
  for (const std::string* path : {&outputs.model, &outputs.recipe, &outputs.calibration,
                                  &outputs.evaluation, &outputs.report}) {
    EW_TRY(CheckOutput(model, *path, overwrite));
    EW_TRY(CheckOutput(options.text_path, *path, true));
    if (!options.tokenizer_path.empty()) {
      EW_TRY(CheckOutput(options.tokenizer_path, *path, true));
    }
  }
  return Ok{};
}

}  // namespace

FitOutputs OutputsOf(const std::string& output) {
  const std::string stem = output.ends_with(".gguf") ? output.substr(0, output.size() - 5) : output;
  return {output, stem + ".recipe.yaml", stem + ".calibration.txt", stem + ".evaluation.txt",
          stem + ".html"};
}

Result<FitSummary> Fit(const std::string& model, const FitOptions& options, Progress* progress) {
  NoProgress silent;
  if (progress == nullptr) progress = &silent;
  const double start = NowSeconds();
  const std::string folder = JournalFolder(options.output);
  const bool finishing = options.resume && FileExists(FinishingPath(folder));
  EW_TRY(CheckOutputs(model, options, options.overwrite || finishing));
  Search search(model, options, progress);
  EW_TRY(search.Prepare());
  EW_TRY(const Json identity, search.RunIdentity());
  EW_TRY(RunJournal journal,
         RunJournal::Open(options.output, identity, {options.resume, options.overwrite}));
  EW_TRY(search.Begin(folder));
  if (const Status planned = search.PlanCandidates(folder, false); !planned) {
    if (!journal.resumed()) journal.Remove();  // nothing is measured yet
    return planned.error();
  }
  EW_TRY(search.Predict());
  EW_TRY(search.HalveByKl());
  EW_TRY(search.MeasureFinalists());
  FitSummary& summary = search.summary();
  summary.resumed = journal.resumed();
  summary.seconds = NowSeconds() - start;
  if (summary.chosen) {
    EW_TRY(search.WriteChosen());
    journal.Remove();
    summary.seconds = NowSeconds() - start;
  }
  return std::move(summary);
}

Result<FitSummary> PlanFit(const std::string& model, const FitOptions& options,
                           Progress* progress) {
  NoProgress silent;
  if (progress == nullptr) progress = &silent;
  const double start = NowSeconds();
  Search search(model, options, progress);
  EW_TRY(search.Prepare());
  EW_TRY(search.Begin(options.work_folder));
  EW_TRY(search.PlanCandidates(options.work_folder, true));
  EW_TRY(search.Predict());
  FitSummary& summary = search.summary();
  if (const Json* bench = summary.reference.Find("bench_seconds")) {
    const auto runs = static_cast<double>(summary.candidates.size()) +
                      static_cast<double>(search.reference_count());
    summary.estimated_seconds += runs * *bench->AsDouble();
  }
  ScreenCandidates(options.budget, &summary.candidates);
  summary.seconds = NowSeconds() - start;
  return std::move(summary);
}

}  // namespace edgewise
