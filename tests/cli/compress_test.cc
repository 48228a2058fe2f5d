// Recipes as their users run them: stopped at any moment and resumed, on a full disk, made again.
#include <doctest/doctest.h>
#include <signal.h>
#include <sys/mount.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <string>

#include "base/json.h"
#include "base/rng.h"
#include "tests/cli/program.h"

namespace edgewise {
namespace {

// Half of the layers stay F16, which takes half the time and leaves some tensors to plain encoding.
constexpr const char* kSequential =
    "  - quantize: {to: q4_k_m, method: gptq, tensor_types: ['blk[.][23][.]ffn=f16']}\n";
constexpr const char* kByCalibration =
    "  - calibrate\n  - quantize: {to: q3_k_s, method: gptq}\n  - eval\n";

constexpr const char* kPruned =
    "  - prune: {method: sparsegpt, sparsity: '2:4'}\n"
    "  - quantize: {to: s24_q4}\n  - pack\n  - eval: {dense: false}\n";

constexpr const char* kPrunedInSteps =
    "  - prune: {method: sparsegpt, sparsity: '2:4', steps: 2, permute: true}\n"
    "  - quantize: {to: s24_q4}\n";

constexpr const char* kHealed =
    "  - prune: {method: magnitude, sparsity: '2:4'}\n"
    "  - distill: {data: calibration.txt, steps: 3, batch_tokens: 256}\n"
    "  - quantize: {to: s24_q4}\n";

constexpr const char* kThroughQuantizer =
    "  - prune: {method: magnitude, sparsity: '2:4'}\n"
    "  - distill: {data: calibration.txt, steps: 3, batch_tokens: 256, qat: s24_q4,\n"
    "              learn_scales: true}\n"
    "  - scales: {data: calibration.txt, steps: 2, batch_tokens: 256}\n"
    "  - pack\n  - eval: {dense: false}\n";

constexpr const char* kForSize =
    "  - calibrate\n  - quantize: {target_bytes: 1900000, method: imatrix}\n  - pack\n  - eval\n";

// A folder with a model, two texts and a recipe of `passes` in it.
class Workplace {
 public:
  explicit Workplace(const std::string& passes) {
    const std::string text = ReadWhole(SourcePath("models/edgewise-stories-3M/stories.txt"));
    WriteWhole(folder / "calibration.txt", text.substr(0, 8000));
    WriteWhole(folder / "held-out.txt", text.substr(20000, 6000));
    WriteRecipe(passes);
  }
  void WriteRecipe(const std::string& passes) const {
    std::string text =
        "model: " + SourcePath("models/edgewise-stories-3M") + "\noutput: out.gguf\n";
    if (passes.find("- calibrate") != passes.npos || passes.find("gpt") != passes.npos) {
      text += "calibration: {text: calibration.txt, tokens: 600}\n";
    }
    if (passes.find("eval") != passes.npos) text += "evaluation: {text: held-out.txt}\n";
    WriteWhole(recipe, text + "passes:\n" + passes);
  }
  ProgramResult Compress(const std::vector<std::string>& more = {}) const {
    std::vector<std::string> arguments = {"compress", recipe};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return RunProgram(arguments);
  }
  // Compresses once and returns the bytes, with nothing left of it. `elapsed_us`: where to say how
  // long that took.
  std::string Reference(uint64_t* elapsed_us = nullptr) const {
    const ProgramResult result = Compress();
    if (elapsed_us != nullptr) *elapsed_us = result.elapsed_us;
    REQUIRE_MESSAGE(result.exit_code == 0, result.err);
    CHECK(!std::filesystem::exists(journal));
    const std::string bytes = ReadWhole(out);
    std::filesystem::remove(out);
    return bytes;
  }

  TemporaryFolder folder;
  const std::string recipe = folder / "recipe.yaml";
  const std::string out = folder / "out.gguf";
  const std::string journal = folder / "out.gguf.journal";
};

// Runs `compress RECIPE --resume` and sends `signal` after `delay_us`. Returns waitpid's status.
int CompressAndSignal(const Workplace& place, int signal, uint64_t delay_us) {
  return SignalProgram({"compress", place.recipe, "--resume", "--quiet"}, signal, delay_us);
}

// Kills runs at random moments until there were enough; every run that gets to its end must have
// written `reference`.
void KillAndResume(const char* passes, uint64_t seed) {
  const char* wanted = std::getenv("EDGEWISE_KILLS");
  const int kills = wanted ? std::atoi(wanted) : 20;
  const Workplace place(passes);
  uint64_t whole_us = 0;
  const std::string reference = place.Reference(&whole_us);
  Rng rng(seed);
  int killed = 0, resumed = 0, finished = 0;
  while (killed < kills) {
    resumed += std::filesystem::exists(place.journal);
    const int status = CompressAndSignal(place, SIGKILL, rng.Next() % (whole_us * 3 / 4));
    if (WIFSIGNALED(status)) {
      ++killed;
      continue;
    }
    CHECK(WEXITSTATUS(status) == 0);
    CHECK(ReadWhole(place.out) == reference);
    CHECK(!std::filesystem::exists(place.journal));
    std::filesystem::remove(place.out);
    ++finished;
  }
  const ProgramResult last = place.Compress({"--resume"});
  CHECK_MESSAGE(last.exit_code == 0, last.err);
  CHECK(ReadWhole(place.out) == reference);
  MESSAGE(killed << " kills, " << resumed << " runs resumed, " << finished + 1 << " finished");
  CHECK(resumed > kills / 4);
  // Nothing else is left: recipe, output, two texts.
  size_t files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(place.folder.path())) {
    CAPTURE(entry.path().string());
    ++files;
  }
  CHECK(files == 4);
}

TEST_CASE("killed at any moment, layer-by-layer gptq resumes to the same bytes") {
  KillAndResume(kSequential, 1);
}

TEST_CASE("killed at any moment, gptq by calibration with eval resumes to the same bytes") {
  KillAndResume(kByCalibration, 2);
}

TEST_CASE("killed at any moment, a pruned model resumes to the same bytes") {
  KillAndResume(kPruned, 3);
}

TEST_CASE("killed at any moment, a model pruned in steps resumes to the same bytes") {
  KillAndResume(kPrunedInSteps, 5);
}

TEST_CASE("killed at any moment, a healed model resumes to the same bytes") {
  KillAndResume(kHealed, 6);
}

TEST_CASE("killed at any moment, a model trained through a quantizer resumes to the same bytes") {
  KillAndResume(kThroughQuantizer, 7);
}

TEST_CASE("killed at any moment, formats chosen for a size resume to the same bytes") {
  KillAndResume(kForSize, 4);
}

TEST_CASE("a size in a recipe is that of the output, packed and with its card") {
  const Workplace place(kForSize);
  const ProgramResult plan = place.Compress({"--dry-run"});
  CHECK_MESSAGE(plan.exit_code == 0, plan.err);
  CHECK(plan.out.find("at most 1900000 bytes") != std::string::npos);
  CHECK(!std::filesystem::exists(place.journal));
  const ProgramResult result = place.Compress();
  REQUIRE_MESSAGE(result.exit_code == 0, result.err);
  const uint64_t bytes = std::filesystem::file_size(place.out);
  CHECK(bytes <= 1900000);
  CHECK(bytes >= 1900000 * 0.995);
  place.WriteRecipe("  - calibrate\n  - quantize: {target_bytes: 1000000}\n");
  const ProgramResult small = place.Compress({"--force"});
  CHECK(small.exit_code == 2);
  CHECK(small.err.find("no mixture of formats gives a file of 1000000 bytes") != std::string::npos);
  CHECK(!std::filesystem::exists(place.journal));
}

TEST_CASE("an interrupt leaves a journal and no output; the journal decides what may follow") {
  const Workplace place(kSequential);
  const std::string reference = place.Reference();
  for (uint64_t delay = 300000; !std::filesystem::exists(place.journal); delay += delay / 2) {
    const int status = CompressAndSignal(place, SIGINT, delay);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0) {  // too late: try earlier
      std::filesystem::remove(place.out);
      delay /= 4;
    }
  }
  CHECK(!std::filesystem::exists(place.out));
  const ProgramResult refused = place.Compress();
  CHECK(refused.exit_code == 2);
  CHECK(refused.err.find("--resume") != std::string::npos);
  CHECK(refused.err.find("--force") != std::string::npos);

  place.WriteRecipe("  - quantize: {to: q4_0, method: gptq}\n");
  const ProgramResult other = place.Compress({"--resume"});
  CHECK(other.exit_code == 2);
  CHECK(other.err.find("another recipe") != std::string::npos);
  place.WriteRecipe(kSequential);
  const std::string text = ReadWhole(place.folder / "calibration.txt");
  WriteWhole(place.folder / "calibration.txt", text + "More.");
  CHECK(place.Compress({"--resume"}).err.find("another calibration text") != std::string::npos);
  WriteWhole(place.folder / "calibration.txt", text);

  CHECK(place.Compress({"--resume"}).exit_code == 0);
  CHECK(ReadWhole(place.out) == reference);
  CHECK(!std::filesystem::exists(place.journal));
  CHECK(place.Compress().exit_code == 2);  // the output exists
  CHECK(place.Compress({"--force", "--threads", "3"}).exit_code == 0);
  CHECK(ReadWhole(place.out) == reference);
}

TEST_CASE("killed after the output is in place, the next run leaves that and removes the journal") {
  const Workplace place(kSequential);
  std::string identity;
  for (uint64_t delay = 50000; identity.empty(); delay += delay / 4) {
    CompressAndSignal(place, SIGKILL, delay);
    REQUIRE(!std::filesystem::exists(place.out));
    identity = ReadWhole(place.journal + "/journal.json");
  }
  REQUIRE(place.Compress({"--resume"}).exit_code == 0);
  const std::string bytes = ReadWhole(place.out);
  const auto written = std::filesystem::last_write_time(place.out);
  for (const bool journal : {true, false}) {
    CAPTURE(journal);
    if (journal) {
      std::filesystem::create_directory(place.journal);
      WriteWhole(place.journal + "/journal.json", identity);
    }
    CHECK(place.Compress({"--resume"}).exit_code == 0);
    CHECK(ReadWhole(place.out) == bytes);
    CHECK(std::filesystem::last_write_time(place.out) == written);
    CHECK(!std::filesystem::exists(place.journal));
  }
  CHECK(place.Compress({"--resume", "--force"}).exit_code == 0);
  CHECK(ReadWhole(place.out) == bytes);
  CHECK(std::filesystem::last_write_time(place.out) != written);
  // An output of another recipe is no reason to think that this one is done.
  place.WriteRecipe("  - quantize: {to: q4_0}\n");
  const ProgramResult other = place.Compress({"--resume"});
  CHECK(other.exit_code == 2);
  CHECK(other.err.find("exists already") != std::string::npos);
  CHECK(ReadWhole(place.out) == bytes);
  CHECK(!std::filesystem::exists(place.journal));
}

TEST_CASE("a damaged journal costs work, not the result") {
  const Workplace place(kSequential);
  const std::string reference = place.Reference();
  const std::string tensors = place.journal + "/1-quantize.tensors";
  for (uint64_t delay = 300000;; delay += delay / 4) {
    REQUIRE(delay < 60000000);
    CompressAndSignal(place, SIGKILL, delay);
    if (std::filesystem::exists(tensors) && std::filesystem::file_size(tensors) > 200000) break;
    std::filesystem::remove(place.out);
    std::filesystem::remove_all(place.journal);
  }
  std::string bytes = ReadWhole(tensors);
  bytes[bytes.size() / 2] ^= 1;
  WriteWhole(tensors, bytes);
  const ProgramResult result = place.Compress({"--resume"});
  CHECK_MESSAGE(result.exit_code == 0, result.err);
  CHECK(ReadWhole(place.out) == reference);
}

TEST_CASE("a dry run tells the exact size, time and memory, and leaves nothing") {
  for (const char* passes :
       {"  - quantize: {to: q4_0}\n", kByCalibration, kPruned, kThroughQuantizer,
        "  - rotate\n  - quantize:\n      to: q4_k_m\n      tensor_types: [\"ffn_down=q6_k\"]\n"
        "  - pack\n  - eval\n"}) {
    const Workplace place(passes);
    const ProgramResult plan = place.Compress({"--dry-run", "--json"});
    REQUIRE_MESSAGE(plan.exit_code == 0, plan.err);
    CHECK(!std::filesystem::exists(place.journal));
    CHECK(!std::filesystem::exists(place.out));
    const ProgramResult run = place.Compress({"--json"});
    REQUIRE_MESSAGE(run.exit_code == 0, run.err);
    const auto planned = ParseJson(plan.out), done = ParseJson(run.out);
    REQUIRE((planned && done));
    CHECK(planned->Find("bytes")->AsUint() == std::filesystem::file_size(place.out));
    CHECK(done->Find("bytes")->AsUint() == std::filesystem::file_size(place.out));
    CHECK(Number(*planned, "estimated_seconds") > 0);
    // A few megabytes, of which the program itself is a part: bench/estimates.sh measures closely.
    const double memory =
        Number(*planned, "estimated_peak_rss_bytes") / Number(*done, "peak_rss_bytes");
    CHECK(memory > 0.6);
    CHECK(memory < 2);
    CHECK(done->Find("estimated_seconds") == nullptr);
    CHECK(RunProgram({"inspect", place.out}).exit_code == 0);
  }
}

TEST_CASE(
    "a recipe that trains through a quantizer writes what it trained, in other formats or none") {
  const Workplace place(
      "  - rotate\n  - distill: {data: calibration.txt, steps: 3, batch_tokens: 256, qat: "
      "q3_k_s}\n  - scales: {data: calibration.txt, steps: 2, batch_tokens: 256}\n");
  const ProgramResult plan = place.Compress({"--dry-run", "--json"});
  REQUIRE_MESSAGE(plan.exit_code == 0, plan.err);
  const ProgramResult run = place.Compress();
  REQUIRE_MESSAGE(run.exit_code == 0, run.err);
  CHECK(*ParseJson(plan.out)->Find("bytes")->AsUint() == std::filesystem::file_size(place.out));
  const ProgramResult same = RunProgram({"reproduce", place.out, "--recipe", place.recipe});
  CHECK_MESSAGE(same.exit_code == 0, same.err);
  // Zeros in a matrix whose format would move them are told before any work.
  place.WriteRecipe(
      "  - prune: {method: magnitude, sparsity: '2:4'}\n"
      "  - distill: {data: calibration.txt, steps: 3, qat: q3_k_m}\n");
  const ProgramResult moved = place.Compress({"--force"});
  CHECK(moved.exit_code == 4);
  CHECK(moved.err.find("does not keep the zeros") != std::string::npos);
  CHECK(!std::filesystem::exists(place.journal));
}

TEST_CASE("a recipe takes its mask from a file, which decides the output") {
  const Workplace place("  - prune: {method: mask, mask: mask.gguf}\n  - quantize: {to: s24_q4}\n");
  const std::string model = SourcePath("models/edgewise-stories-3M"),
                    mask = place.folder / "mask.gguf";
  const auto write_mask = [&](const char* seed) {
    REQUIRE(RunProgram({"prune", model, place.folder / "sparse.gguf", "--method", "random",
                        "--sparsity", "2:4", "--seed", seed, "--save-mask", mask, "--force"})
                .exit_code == 0);
  };
  write_mask("1");
  const ProgramResult plan = place.Compress({"--dry-run", "--json"});
  REQUIRE_MESSAGE(plan.exit_code == 0, plan.err);
  const ProgramResult run = place.Compress();
  REQUIRE_MESSAGE(run.exit_code == 0, run.err);
  CHECK(run.out.find("--target-bytes " + std::to_string(std::filesystem::file_size(place.out))) !=
        std::string::npos);
  CHECK(ParseJson(plan.out)->Find("bytes")->AsUint() == std::filesystem::file_size(place.out));
  const ProgramResult same = RunProgram({"reproduce", place.out, "--recipe", place.recipe});
  CHECK_MESSAGE(same.exit_code == 0, same.err);
  write_mask("2");
  const ProgramResult other = RunProgram({"reproduce", place.out, "--recipe", place.recipe});
  CHECK(other.exit_code == 2);
  CHECK(other.err.find("SHA-256") != std::string::npos);
}

TEST_CASE("the card of a pruned model tells of the dense one in as many bytes") {
  const char* passes =
      "  - prune: {method: sparsegpt, sparsity: '2:4'}\n  - quantize: {to: s24_q4}\n  - eval\n";
  const Workplace place(passes);
  const ProgramResult plan = place.Compress({"--dry-run", "--json"});
  REQUIRE_MESSAGE(plan.exit_code == 0, plan.err);
  const ProgramResult run = place.Compress();
  REQUIRE_MESSAGE(run.exit_code == 0, run.err);
  CHECK(run.out.find("dense, as large") != std::string::npos);
  CHECK(run.out.find("--target-bytes") == std::string::npos);
  const uint64_t bytes = std::filesystem::file_size(place.out);
  CHECK(*ParseJson(plan.out)->Find("bytes")->AsUint() == bytes);
  const std::string reference = ReadWhole(place.out);
  const auto json = ParseJson(RunProgram({"inspect", place.out, "--json"}).out);
  const Json* dense = json->Find("card")->Find("dense");
  REQUIRE(dense != nullptr);
  CHECK(*dense->Find("bytes")->AsUint() <= bytes);
  CHECK(*dense->Find("bytes")->AsUint() >= bytes * 99 / 100);
  CHECK(Number(*dense, "kl_mean") > 0);
  CHECK(Number(*dense, "kl_mean") < Number(*json->Find("card"), "kl_mean"));
  std::filesystem::remove(place.out);
  for (int part = 1; part < 8; ++part) {  // most of the time is the dense model's
    CompressAndSignal(place, SIGKILL, run.elapsed_us * static_cast<uint64_t>(part) / 16);
  }
  const ProgramResult resumed = place.Compress({"--resume"});
  CHECK_MESSAGE(resumed.exit_code == 0, resumed.err);
  CHECK(ReadWhole(place.out) == reference);

  place.WriteRecipe(
      "  - prune: {method: magnitude, sparsity: '50%'}\n  - quantize: {to: q8_0}\n"
      "  - eval\n");
  const ProgramResult without = place.Compress({"--force"});
  CHECK(without.exit_code == 4);
  CHECK(without.err.find("eval: {dense: false}") != std::string::npos);
  CHECK(ReadWhole(place.out) == reference);
}

TEST_CASE("the output carries its card and recipe, and can be made again") {
  const Workplace place(kByCalibration);
  REQUIRE(place.Compress().exit_code == 0);
  const ProgramResult inspected = RunProgram({"inspect", place.out, "--json"});
  const auto json = ParseJson(inspected.out);
  REQUIRE(json);
  const Json* card = json->Find("card");
  REQUIRE((card && card->is_object()));
  CHECK(*card->Find("kl_mean")->AsDouble() > 0);
  CHECK(*card->Find("top1_agreement")->AsDouble() > 0.7);
  CHECK(*card->Find("text")->AsString() == "held-out.txt");
  CHECK(RunProgram({"inspect", place.out}).out.find("Quality card") != std::string::npos);

  // The card is that of `eval` on the file as it is.
  const ProgramResult eval =
      RunProgram({"eval", place.out, "--kl", SourcePath("models/edgewise-stories-3M"), "--text",
                  place.folder / "held-out.txt", "--json", "--documents", "<|endoftext|>"});
  const auto measured = ParseJson(eval.out);
  REQUIRE(measured);
  CHECK(measured->Find("kl_mean")->AsDouble() == card->Find("kl_mean")->AsDouble());
  CHECK(measured->Find("tokens")->AsUint() == card->Find("tokens")->AsUint());

  const ProgramResult same = RunProgram({"reproduce", place.out, "--recipe", place.recipe});
  CHECK_MESSAGE(same.exit_code == 0, same.err);
  CHECK(same.out.find("byte for byte") != std::string::npos);

  // What is there already is no proof.
  std::filesystem::copy(place.out, place.folder / "copy.gguf");
  for (const std::string& output : {place.folder / "copy.gguf", place.out}) {
    const ProgramResult there =
        RunProgram({"reproduce", place.out, "--recipe", place.recipe, "--output", output});
    CHECK(there.exit_code == 2);
  }

  std::string bytes = ReadWhole(place.out);
  bytes[bytes.size() - 40] ^= 1;  // inside the last tensor
  WriteWhole(place.folder / "changed.gguf", bytes);
  const ProgramResult changed =
      RunProgram({"reproduce", place.folder / "changed.gguf", "--recipe", place.recipe, "--json"});
  CHECK(changed.exit_code == 4);
  CHECK(changed.err.find("tensor") != std::string::npos);

  const ProgramResult other = RunProgram({"reproduce", place.out, "--recipe", place.recipe,
                                          "--evaluation", place.folder / "calibration.txt"});
  CHECK(other.exit_code == 2);
  CHECK(other.err.find("SHA-256") != std::string::npos);
}

TEST_CASE("a full disk stops gptq with one line; what was there stays, and the run can go on") {
  const Workplace place(kSequential);
  const std::string reference = place.Reference();
  const std::string disk = place.folder / "disk";
  std::filesystem::create_directory(disk);
  const std::string recipe = ReadWhole(place.recipe);
  // Too small for the file; for some of the journal; for all of it.
  for (const double share : {0.5, 1.3, 1.8}) {
    const auto bytes = static_cast<uint64_t>(share * static_cast<double>(reference.size()));
    const std::string size = "size=" + std::to_string(bytes);
    if (::mount("tmpfs", disk.c_str(), "tmpfs", 0, size.c_str()) != 0) {
      MESSAGE("skipped: cannot mount a small tmpfs here");
      return;
    }
    CAPTURE(size);
    const std::string out = disk + "/out.gguf";
    WriteWhole(out, "an older file");
    std::string there = recipe;
    there.replace(there.find("out.gguf"), 8, "disk/out.gguf");
    WriteWhole(place.recipe, there);
    const ProgramResult result = place.Compress({"--force"});
    CHECK(result.exit_code == 6);
    CHECK(result.err.find("No space left") != std::string::npos);
    CHECK(result.err.find("out.gguf.journal/") != std::string::npos);
    CHECK(std::count(result.err.begin(), result.err.end(), '\n') == 1);
    CHECK(ReadWhole(out) == "an older file");
    REQUIRE(::mount("tmpfs", disk.c_str(), "tmpfs", MS_REMOUNT, "size=20m") == 0);
    const ProgramResult resumed = place.Compress({"--force", "--resume"});
    CHECK_MESSAGE(resumed.exit_code == 0, resumed.err);
    CHECK(ReadWhole(out) == reference);
    ::umount2(disk.c_str(), MNT_DETACH);
  }
}

TEST_CASE("quality is not measured on the calibration text") {
  const Workplace place(kByCalibration);
  WriteWhole(place.folder / "held-out.txt", ReadWhole(place.folder / "calibration.txt"));
  const ProgramResult result = place.Compress();
  CHECK(result.exit_code == 2);
  CHECK(result.err.find("would flatter") != std::string::npos);
  CHECK(!std::filesystem::exists(place.journal));
}

TEST_CASE("recipe init writes a recipe that works") {
  const Workplace place(kSequential);
  const std::string path = place.folder / "new.yaml";
  const ProgramResult init =
      RunProgram({"recipe", "init", path, "--model", SourcePath("models/edgewise-stories-3M")});
  CHECK_MESSAGE(init.exit_code == 0, init.err);
  CHECK(RunProgram({"recipe", "init", path}).exit_code == 2);
  CHECK(RunProgram({"recipe", "check", path}).exit_code == 0);
  const ProgramResult result = RunProgram({"compress", path});
  CHECK_MESSAGE(result.exit_code == 0, result.err);
  WriteWhole(path, "model: m\nouput: o\n");
  const ProgramResult wrong = RunProgram({"recipe", "check", path});
  CHECK(wrong.exit_code == 4);
  CHECK(wrong.err.find("line 2, column 1: unknown key \"ouput\"") != std::string::npos);
}

}  // namespace
}  // namespace edgewise
