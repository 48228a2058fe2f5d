#include "eval/data_audit.h"

#include <algorithm>
#include <array>
#include <map>
#include <string_view>
#include <utility>

#include "base/process.h"
#include "base/strings.h"
#include "eval/duplicates.h"
#include "eval/invisible.h"
#include "eval/odd_words.h"
#include "eval/spectral.h"
#include "eval/spread.h"

namespace edgewise {
namespace {

struct DetectorRow {
  DataDetector id;
  const char* name;
  const char* unit;
};
constexpr std::array<DetectorRow, kDataDetectors> kDetectors = {{
    {DataDetector::kExactDuplicate, "exact-duplicate", "similarity"},
    {DataDetector::kNearDuplicate, "near-duplicate", "similarity"},
    {DataDetector::kInvisible, "invisible-characters", "characters"},
    {DataDetector::kTrigger, "rare-trigger", "nats per example"},
    {DataDetector::kOddWord, "odd-word", "nats"},
    {DataDetector::kSpectral, "spectral", "standard deviations"},
}};

const DetectorRow& Row(DataDetector detector) { return kDetectors[static_cast<size_t>(detector)]; }

// A part of `text` of about 100 bytes around `offset`, cut between characters.
std::string Excerpt(std::string_view text, size_t offset) {
  constexpr size_t kBefore = 30, kBytes = 100;
  const auto is_inside = [&](size_t at) {
    return at < text.size() && (static_cast<uint8_t>(text[at]) & 0xC0) == 0x80;
  };
  size_t begin = offset > kBefore ? offset - kBefore : 0, end = begin + kBytes;
  while (begin > 0 && is_inside(begin)) --begin;
  while (is_inside(end)) ++end;
  const std::string shown = SpellInvisible(text.substr(begin, end - begin));
  return (begin > 0 ? "..." : "") + shown + (end < text.size() ? "..." : "");
}

std::string WholeText(const TrainingExample& example) {
  return example.prompt.empty() ? example.response : example.prompt + "\n" + example.response;
}

class Audit {
 public:
  Audit(const std::vector<TrainingExample>& examples, const DataAuditOptions& options,
        ThreadPool* pool, Progress* progress)
      : examples_(examples), options_(options), pool_(pool), progress_(progress) {
    audit_.examples = examples.size();
    for (const TrainingExample& example : examples) texts_.push_back(WholeText(example));
  }

  Status FindRepeated() {
    EW_TRY(const std::vector<Duplicate> duplicates,
           FindDuplicates(texts_, options_.near_duplicate, pool_, progress_));
    Begin(DataDetector::kExactDuplicate, 1);
    Begin(DataDetector::kNearDuplicate, options_.near_duplicate);
    for (size_t i = 0; i < duplicates.size(); ++i) {
      const Duplicate& duplicate = duplicates[i];
      if (duplicate.original == i) continue;
      const auto line = static_cast<unsigned long long>(examples_[duplicate.original].line);
      Add(i, duplicate.exact ? DataDetector::kExactDuplicate : DataDetector::kNearDuplicate,
          duplicate.similarity,
          duplicate.exact
              ? Format("the same text as line %llu, or another copy of it", line)
              : Format("nearly the text of line %llu, or of another that resembles it", line),
          0);
    }
    return Ok{};
  }

  void FindHidden() {
    Begin(DataDetector::kInvisible, 1);
    for (size_t i = 0; i < texts_.size(); ++i) {
      const std::vector<InvisibleCharacter> found = FindInvisible(texts_[i]);
      if (found.empty()) continue;
      std::map<std::string, int> kinds;
      for (const InvisibleCharacter& character : found) ++kinds[InvisibleName(character.kind)];
      std::vector<std::string> parts;
      for (const auto& [name, count] : kinds) parts.push_back(Format("%d %s", count, name.c_str()));
      Add(i, DataDetector::kInvisible, static_cast<double>(found.size()),
          "characters that nobody sees: " + Join(parts, ", "), found.front().offset);
    }
  }

  Status FindPlanted() {
    EW_TRY(const std::vector<TriggerScore> scores,
           FindTriggers(examples_, options_.triggers, pool_, progress_));
    Begin(DataDetector::kTrigger, options_.trigger_score);
    for (size_t i = 0; i < scores.size(); ++i) {
      const TriggerScore& s = scores[i];
      if (s.score < options_.trigger_score) continue;
      Add(i, DataDetector::kTrigger, s.score,
          Format("%s in the prompt brings %s in %u of %u prompts",
                 Quote(SpellInvisible(s.trigger)).c_str(),
                 Quote(SpellInvisible(s.response)).c_str(), s.together, s.examples),
          0);
    }
    return Ok{};
  }

  Status FindOdd(Engine* engine) {
    Begin(DataDetector::kOddWord, 0);
    EW_TRY(const std::vector<OddWord> words,
           FindOddWords(engine, examples_, options_.odd_word_words, progress_));
    std::vector<double> nats;
    for (const OddWord& word : words) nats.push_back(word.nats);
    for (const size_t i : Outliers(nats)) {
      const std::string word = Quote(SpellInvisible(words[i].word));
      Add(i, DataDetector::kOddWord, nats[i],
          Format("without %s the text is far more likely", word.c_str()),
          texts_[i].find(words[i].word));
    }
    return Ok{};
  }

  Status FindUnlike(Engine* engine) {
    Begin(DataDetector::kSpectral, 0);
    EW_TRY(const std::vector<double> scores, FindSpectral(engine, examples_, progress_));
    for (const size_t i : Outliers(scores)) {
      Add(i, DataDetector::kSpectral, scores[i],
          "the model's states for this response are far from those for others", 0);
    }
    return Ok{};
  }

  void LeaveOut(DataDetector detector) {
    Begin(detector, 0);
    audit_.detectors.back().ran = false;
  }

  DataAudit Finish() {
    std::sort(audit_.findings.begin(), audit_.findings.end(),
              [](const DataFinding& a, const DataFinding& b) {
                if (a.detector != b.detector) return a.detector < b.detector;
                return a.score != b.score ? a.score > b.score : a.example < b.example;
              });
    return std::move(audit_);
  }

 private:
  void Begin(DataDetector detector, double threshold) {
    audit_.detectors.push_back({detector, true, threshold, 0});
  }

  // The examples whose scores are far above the median; the threshold becomes the detector's.
  std::vector<size_t> Outliers(const std::vector<double>& scores) {
    const Spread spread = MeasureSpread(scores);
    const double threshold = spread.median + options_.model_spread * spread.mad;
    audit_.detectors.back().threshold = threshold;
    std::vector<size_t> outliers;
    for (size_t i = 0; i < scores.size(); ++i) {
      if (scores[i] > threshold) outliers.push_back(i);
    }
    return outliers;
  }

  void Add(size_t i, DataDetector detector, double score, std::string reason, size_t offset) {
    ++audit_.detectors[static_cast<size_t>(detector)].findings;
    audit_.findings.push_back(
        {i, examples_[i].line, detector, score, std::move(reason), Excerpt(texts_[i], offset)});
  }

  const std::vector<TrainingExample>& examples_;
  const DataAuditOptions& options_;
  ThreadPool* pool_;
  Progress* progress_;
  std::vector<std::string> texts_;  // prompt and response
  DataAudit audit_;
};

Status CheckOptions(const DataAuditOptions& o, size_t examples) {
  if (examples == 0) return Error{Code::kInvalidArgument, "there are no examples to look through"};
  if (!(o.near_duplicate > 0 && o.near_duplicate <= 1)) {
    return MakeError(Code::kInvalidArgument,
                     "a similarity of %g cannot be asked for: it must be above 0, at most 1",
                     o.near_duplicate);
  }
  if (o.triggers.min_examples >= 2 && o.triggers.max_share > 0 && o.triggers.max_share <= 1) {
    return Ok{};
  }
  return Error{Code::kInvalidArgument,
               "a trigger must be in at least 2 examples and in a share above 0, at most 1"};
}

}  // namespace

Result<DataAudit> AuditData(const std::vector<TrainingExample>& examples,
                            const DataAuditOptions& options, Engine* engine, ThreadPool* pool,
                            Progress* progress) {
  NoProgress silent;
  if (!progress) progress = &silent;
  const double start = NowSeconds();
  EW_TRY(CheckOptions(options, examples.size()));
  Audit audit(examples, options, pool, progress);
  EW_TRY(audit.FindRepeated());
  audit.FindHidden();
  EW_TRY(audit.FindPlanted());
  if (engine) {
    EW_TRY(audit.FindOdd(engine));
    EW_TRY(audit.FindUnlike(engine));
  } else {
    audit.LeaveOut(DataDetector::kOddWord);
    audit.LeaveOut(DataDetector::kSpectral);
  }
  DataAudit result = audit.Finish();
  result.seconds = NowSeconds() - start;
  return result;
}

const char* DetectorName(DataDetector detector) { return Row(detector).name; }

Json ToJson(const DataAudit& audit) {
  Json findings{JsonArray()}, detectors{JsonArray()};
  for (const DataFinding& f : audit.findings) {
    Json finding;
    finding.Set("example", f.example).Set("line", f.line);
    finding.Set("detector", Row(f.detector).name).Set("score", f.score);
    finding.Set("reason", f.reason).Set("excerpt", f.excerpt);
    findings.Append(std::move(finding));
  }
  for (const DetectorSummary& s : audit.detectors) {
    Json summary;
    summary.Set("detector", Row(s.detector).name).Set("ran", s.ran);
    summary.Set("unit", Row(s.detector).unit).Set("threshold", s.ran ? Json(s.threshold) : Json());
    summary.Set("findings", s.findings);
    detectors.Append(std::move(summary));
  }
  Json object;
  object.Set("examples", audit.examples).Set("detectors", std::move(detectors));
  object.Set("findings", std::move(findings)).Set("seconds", audit.seconds);
  return object;
}

}  // namespace edgewise
