// The search for a budget as its users run it. No test depends on a time.
#include <doctest/doctest.h>

#include <algorithm>
#include <filesystem>
#include <string>

#include "base/json.h"
#include "base/rng.h"
#include "tests/cli/program.h"

namespace edgewise {
namespace {

// A folder with a text of a few stories, in which models are searched for.
class FitPlace {
 public:
  FitPlace() {
    WriteWhole(text,
               ReadWhole(SourcePath("models/edgewise-stories-3M/stories.txt")).substr(0, 9000));
  }
  std::vector<std::string> Arguments(const std::vector<std::string>& more) const {
    std::vector<std::string> arguments = {"fit", SourcePath("models/edgewise-stories-3M"), out};
    for (const auto& [flag, value] : {std::pair<std::string, std::string>("--text", text),
                                      {"--repetitions", "1"},
                                      {"--ctx", "64"}}) {
      if (std::find(more.begin(), more.end(), flag) != more.end()) continue;
      arguments.push_back(flag);
      arguments.push_back(value);
    }
    arguments.insert(arguments.end(), more.begin(), more.end());
    return arguments;
  }
  ProgramResult Fit(const std::vector<std::string>& more) const {
    return RunProgram(Arguments(more));
  }
  size_t Files() const {
    const std::filesystem::directory_iterator files(folder.path());
    return static_cast<size_t>(std::distance(begin(files), end(files)));
  }

  TemporaryFolder folder;
  const std::string text = folder / "text.txt";
  const std::string out = folder / "fit.gguf";
  const std::string journal = folder / "fit.gguf.journal";
};

const Json& Candidate(const Json& fit, const std::string& name) {
  static const Json kNone;
  for (const Json& candidate : *fit.Find("candidates")->AsArray()) {
    if (*candidate.Find("name")->AsString() == name) return candidate;
  }
  FAIL("no candidate " << name);
  return kNone;
}

void CheckError(const ProgramResult& result, int exit_code, const std::string& part) {
  CAPTURE(result.err);
  CHECK(result.exit_code == exit_code);
  CHECK(result.err.find(part) != std::string::npos);
  CHECK(std::count(result.err.begin(), result.err.end(), '\n') == 1);
}

TEST_CASE("what cannot be searched for is one clear line, and nothing is written") {
  const FitPlace place;
  CheckError(place.Fit({}), 2, "--memory, --size and --p99");
  CheckError(place.Fit({"--size", "2MB", "--ctx", "1000"}), 2, "trained for 256");
  CheckError(place.Fit({"--size", "2MB", "--kv", "q9"}), 2, "--kv");
  CheckError(place.Fit({"--size", "2MB", "--candidates", "q4_0,q9"}), 2, "\"q9\"; known are");
  CheckError(place.Fit({"--size", "2MB", "--text", place.folder / "absent"}), 3, "absent");
  const std::string text = ReadWhole(place.text);
  WriteWhole(place.text, "One story.<|endoftext|>One story.<|endoftext|>");
  CheckError(place.Fit({"--size", "2MB"}), 2, "1 different documents");
  WriteWhole(place.text, "One story.\nTwo.");
  CheckError(place.Fit({"--size", "2MB"}), 2, "calibrate with");
  CHECK(place.Files() == 1);
  WriteWhole(place.text, text);
  for (const char* name : {"fit.gguf", "fit.recipe.yaml", "fit.html", "fit.evaluation.txt"}) {
    WriteWhole(place.folder / name, "mine");
    CheckError(place.Fit({"--size", "2MB"}), 2, name);
    CHECK(ReadWhole(place.folder / name) == "mine");
    std::filesystem::remove(place.folder / name);
  }
  CHECK(place.Files() == 1);
}

TEST_CASE("a quantized model has no candidates, and the first reason is told") {
  const FitPlace place;
  const std::string small = place.folder / "small.gguf";
  REQUIRE(RunProgram({"quantize", BaseModel(), small, "--to", "q4_0"}).exit_code == 0);
  CheckError(RunProgram({"fit", small, place.out, "--text", place.text, "--size", "2MB",
                         "--candidates", "q8_0,q6_k"}),
             2, "quantized already");
  CHECK(place.Files() == 2);
}

TEST_CASE("a dry run lists the space with exact sizes and writes nothing") {
  const FitPlace place;
  const Json plan = ParseObject(
      place.Fit({"--dry-run", "--json", "--size", "2MB", "--candidates", "q8_0,q4_0,s24_q4"}),
      "fit");
  CHECK(place.Files() == 1);
  CHECK(Number(plan, "estimated_seconds") > 0);
  CHECK(Candidate(plan, "q8_0").Find("left_out")->AsString()->find("file") != std::string::npos);
  CHECK(Candidate(plan, "s24_q4").Find("left_out") == nullptr);
  CHECK(Number(*Candidate(plan, "q4_0").Find("predicted"), "decode_tokens_per_s") > 0);
  CHECK(place.Fit({"--dry-run", "--size", "2MB"}).out.find("alps+s24_q4") != std::string::npos);
  CHECK(place.Files() == 1);
}

TEST_CASE("the chosen file fits, is measured honestly, and its recipe makes it again") {
  const FitPlace place;
  const Json fit = ParseObject(
      place.Fit({"--json", "--size", "2.2MB", "--candidates", "q8_0,q4_0,q3_k_s,q2_k_s,s24_q4"}),
      "fit");
  CHECK(!std::filesystem::exists(place.journal));
  CHECK(*fit.Find("chosen")->AsString() == "q3_k_s");
  const uint64_t bytes = std::filesystem::file_size(place.out);
  CHECK(bytes <= 2200000);
  CHECK(Candidate(fit, "q3_k_s").Find("file_bytes")->AsUint() == bytes);
  CHECK(Candidate(fit, "q8_0").Find("left_out") != nullptr);
  // The sparse candidate shows what a dense one of its size gives.
  const Json* dense = Candidate(fit, "s24_q4").Find("dense_alternative");
  REQUIRE((dense && dense->is_object()));
  CHECK(*dense->Find("file_bytes")->AsUint() <=
        *Candidate(fit, "s24_q4").Find("file_bytes")->AsUint());
  CHECK(Number(*dense->Find("kl"), "kl_mean") > 0);
  // The KL of the search is that of the file's card, on the part that calibration has not seen.
  CHECK(Number(*Candidate(fit, "q3_k_s").Find("kl"), "kl_mean") ==
        Number(*fit.Find("card"), "kl_mean"));
  const std::string calibration = ReadWhole(place.folder / "fit.calibration.txt");
  const std::string evaluation = ReadWhole(place.folder / "fit.evaluation.txt");
  CHECK(evaluation.size() > 1000);
  CHECK(calibration.find(evaluation.substr(0, 100)) == std::string::npos);
  CHECK(ReadWhole(place.folder / "fit.html").find("dense within its bytes") != std::string::npos);
  // text, model, recipe, two texts, report
  CHECK(place.Files() == 6);

  const std::string again = place.folder / "again.gguf";
  const ProgramResult made =
      RunProgram({"compress", place.folder / "fit.recipe.yaml", "--output", again});
  CHECK_MESSAGE(made.exit_code == 0, made.err);
  CHECK(ReadWhole(again) == ReadWhole(place.out));
}

TEST_CASE("a mixture for the budget's bytes is chosen where it is nearer than any preset") {
  const FitPlace place;
  const Json fit = ParseObject(
      place.Fit({"--json", "--size", "2MB", "--candidates", "q3_k_s,q2_k_s,mix-2000000-bytes"}),
      "fit");
  CHECK(*fit.Find("chosen")->AsString() == "mix-2000000-bytes");
  const uint64_t bytes = std::filesystem::file_size(place.out);
  CHECK(bytes <= 2000000);
  CHECK(bytes > 1980000);
  CHECK(Number(*Candidate(fit, "mix-2000000-bytes").Find("kl"), "kl_mean") ==
        Number(*fit.Find("card"), "kl_mean"));
}

TEST_CASE(
    "a budget out of reach: the nearest is named, nothing is written, another budget resumes") {
  const FitPlace place;
  const std::vector<std::string> space = {"--candidates", "q8_0,q2_k_s"};
  const auto with = [&](std::vector<std::string> flags) {
    flags.insert(flags.end(), space.begin(), space.end());
    return place.Fit(flags);
  };
  const ProgramResult none = with({"--size", "1MB", "--p99", "10s"});
  CheckError(none, 9, "nearest is q2_k_s, predicted: file");
  CHECK(none.err.find("--resume") != std::string::npos);
  CHECK(!std::filesystem::exists(place.out));
  const std::string reference = ReadWhole(place.journal + "/reference.json");
  CheckError(with({"--size", "2MB"}), 2, "--resume");
  const ProgramResult other = with({"--memory", "1MB", "--resume"});
  CHECK(other.exit_code == 9);
  CHECK(ReadWhole(place.journal + "/reference.json") == reference);
  const ProgramResult changed = with({"--size", "2MB", "--resume", "--ctx", "128"});
  CheckError(changed, 2, "another setting of the measurements");
  const Json fit = ParseObject(with({"--size", "2MB", "--resume", "--json"}), "fit");
  CHECK(*fit.Find("chosen")->AsString() == "q2_k_s");
  CHECK(*fit.Find("resumed")->AsBool());
  CHECK(place.Files() == 6);
}

TEST_CASE("what has fewer heads is predicted from a model with as few") {
  const FitPlace place;
  REQUIRE(
      place.Fit({"--size", "1MB", "--candidates", "q4_k_m,ffn-25%+heads-25%+q4_k_m"}).exit_code ==
      9);
  const Json whole = *ParseJson(ReadWhole(place.journal + "/reference.json"));
  const Json part = *ParseJson(ReadWhole(place.journal + "/reference-1.json"));
  CHECK(Number(part, "peak_rss_bytes") < Number(whole, "peak_rss_bytes"));
  CHECK_FALSE(std::filesystem::exists(place.journal + "/reference-2.json"));
}

TEST_CASE("killed at any moment, the search resumes to the same file and keeps what it measured") {
  const FitPlace place;
  const std::vector<std::string> flags = {
      "--p99", "10s", "--candidates", "q8_0,q6_k,q4_0,q2_k,s24_q4", "--json", "--resume"};
  REQUIRE(place.Fit(flags).exit_code == 0);
  const std::string reference = ReadWhole(place.out);
  for (const char* name :
       {"fit.gguf", "fit.recipe.yaml", "fit.calibration.txt", "fit.evaluation.txt", "fit.html"}) {
    std::filesystem::remove(place.folder / name);
  }
  Rng rng(4);
  int kills = 0;
  std::string kept;  // what was measured of q8_0 before a kill
  while (!std::filesystem::exists(place.out)) {
    REQUIRE(kills < 200);
    // Later from kill to kill, so that the longest measurement ends on a slow machine too.
    const uint64_t latest_us = 1500000 + 300000 * static_cast<uint64_t>(kills);
    const int status =
        SignalProgram(place.Arguments(flags), SIGKILL, 200000 + rng.Next() % latest_us);
    kills += WIFSIGNALED(status) ? 1 : 0;
    const std::string measured = place.journal + "/q8_0.bench.json";
    if (!std::filesystem::exists(measured)) continue;
    if (kept.empty()) kept = ReadWhole(measured);
    CHECK(ReadWhole(measured) == kept);
  }
  MESSAGE(kills << " kills");
  CHECK(kills > 2);
  if (std::filesystem::exists(place.journal)) CHECK(place.Fit(flags).exit_code == 0);
  CHECK(ReadWhole(place.out) == reference);
  CHECK(place.Files() == 6);
}

}  // namespace
}  // namespace edgewise
