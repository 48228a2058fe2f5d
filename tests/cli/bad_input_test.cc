// Bad input to every verb: one clear line, the right exit code, nothing written.
#include <doctest/doctest.h>
#include <sys/mount.h>
#include <sys/stat.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <functional>

#include "formats/gguf.h"
#include "tests/cli/program.h"

namespace edgewise {
namespace {

const std::string kModel = SourcePath("models/edgewise-stories-3M");

// Every verb that reads a model, with otherwise valid arguments.
std::vector<std::vector<std::string>> ReadingCommands(const std::string& model,
                                                      const std::string& out) {
  return {{"inspect", model},
          {"convert", model, out},
          {"quantize", model, out, "--to", "q4_0"},
          {"quantize", model, out, "--to", "q4_0", "--method", "gptq", "--calibration",
           SourcePath("README.md")},
          {"calibrate", model, SourcePath("README.md"), out},
          {"pack", model, out},
          {"unpack", model, out},
          {"run", model, "--prompt", "x", "--max-tokens", "1"},
          {"chat", model},
          {"eval", model, "--perplexity", SourcePath("README.md")},
          {"eval", kModel, "--kl", model, "--text", SourcePath("README.md")},
          {"audit", kModel, model, "--file", SourcePath("README.md")},
          {"audit", model, kModel, "--file", SourcePath("README.md"), "--output", out},
          {"bench", model, "--prompt-tokens", "4", "--decode-tokens", "2"},
          {"doctor", model},
          {"fit", model, out, "--size", "1MB", "--text", SourcePath("README.md")},
          {"report", model, "--output", out, "--sample-tokens", "10"},
          {"tokenize", model, "--prompt", "x"},
          {"detokenize", model, "--ids", "1"}};
}

void CheckFailure(const std::vector<std::string>& arguments, int exit_code,
                  const std::string& word) {
  const ProgramResult result = RunProgram(arguments);
  CAPTURE(arguments[0]);
  CAPTURE(result.err);
  CHECK(result.exit_code == exit_code);
  CHECK(result.out.empty());
  CHECK(std::count(result.err.begin(), result.err.end(), '\n') == 1);
  CHECK(result.err.rfind("edgewise " + arguments[0] + ": ", 0) == 0);
  CHECK(result.err.find(word) != std::string::npos);
}

bool Empty(const std::string& folder) { return std::filesystem::is_empty(folder); }

TEST_CASE("a missing model, a folder without a model, and a text file in its place") {
  TemporaryFolder folder, out;
  for (const auto& command : ReadingCommands(folder / "absent.gguf", out / "o")) {
    CheckFailure(command, 3, "absent.gguf");
  }
  std::filesystem::create_directory(folder / "empty");
  for (const auto& command : ReadingCommands(folder / "empty", out / "o"))
    CheckFailure(command, 3, "config.json");
  WriteWhole(folder / "text.gguf",
             "this is not a model at all, only some text that someone saved under this name\n");
  for (const auto& command : ReadingCommands(folder / "text.gguf", out / "o"))
    CheckFailure(command, 4, "text.gguf");
  CHECK(Empty(out.path()));
}

TEST_CASE("--json tells errors on stdout too") {
  const ProgramResult result = RunProgram({"inspect", "/no/such/file", "--json"});
  CHECK(result.exit_code == 3);
  CHECK(result.out.find("\"error\":{\"code\":\"not_found\"") != std::string::npos);
  CHECK(!result.err.empty());
}

// A GGUF of a few hundred bytes.
std::string SmallGguf() {
  TemporaryFolder folder;
  Metadata metadata;
  metadata.Set("general.architecture", std::string("llama"));
  metadata.Set("llama.block_count", uint32_t{1});
  metadata.Set("tokenizer.ggml.tokens", MetaArray(std::vector<std::string>{"a", "bc"}));
  auto writer = GgufWriter::Create(
      folder / "small.gguf", false, metadata,
      {{"blk.0.attn_norm.weight", DType::kF32, {8}}, {"token_embd.weight", DType::kF16, {2, 8}}});
  REQUIRE(writer);
  const std::vector<std::byte> zeros(64);
  REQUIRE(writer->Write(std::span(zeros).first(32)));
  REQUIRE(writer->Write(std::span(zeros).first(32)));
  REQUIRE(writer->Finish());
  return ReadWhole(folder / "small.gguf");
}

TEST_CASE("a GGUF cut at any byte is refused") {
  TemporaryFolder folder;
  const std::string whole = SmallGguf();
  WriteWhole(folder / "whole.gguf", whole);
  REQUIRE(RunProgram({"inspect", folder / "whole.gguf"}).exit_code == 0);
  for (size_t size = 0; size < whole.size(); ++size) {
    CAPTURE(size);
    WriteWhole(folder / "cut.gguf", whole.substr(0, size));
    const ProgramResult result = RunProgram({"inspect", folder / "cut.gguf"});
    REQUIRE(result.exit_code == 4);
    REQUIRE(result.out.empty());
    REQUIRE(result.err.rfind("edgewise inspect: ", 0) == 0);
  }
}

TEST_CASE("safetensors cut at any byte of the header, and at the data's end, is refused") {
  TemporaryFolder folder;
  const std::string whole = ReadWhole(kModel + "/model.safetensors");
  std::filesystem::copy(kModel, folder / "model");
  std::filesystem::permissions(folder / "model", std::filesystem::perms::owner_all);
  uint64_t header = 0;
  std::memcpy(&header, whole.data(), 8);
  REQUIRE(header < 100000);
  std::vector<size_t> cuts = {whole.size() - 1, whole.size() / 2};
  for (size_t size = 0; size < 8 + header; size += size < 64 ? 1 : 13) cuts.push_back(size);
  for (const size_t size : cuts) {
    CAPTURE(size);
    WriteWhole(folder / "model/model.safetensors", whole.substr(0, size));
    const ProgramResult result = RunProgram({"inspect", folder / "model"});
    REQUIRE(result.exit_code == 4);
    REQUIRE(result.err.find("model.safetensors") != std::string::npos);
  }
}

TEST_CASE("wrong magic and absurd counts are refused at once") {
  TemporaryFolder folder;
  const std::string whole = SmallGguf();
  const auto patched = [&](size_t offset, const std::string& bytes) {
    std::string copy = whole;
    copy.replace(offset, bytes.size(), bytes);
    WriteWhole(folder / "bad.gguf", copy);
    return folder / "bad.gguf";
  };
  CheckFailure({"inspect", patched(0, "GGML")}, 4, "bad.gguf");
  CheckFailure({"inspect", patched(4, std::string("\x63\0\0\0", 4))}, 9, "version");
  CheckFailure({"inspect", patched(8, std::string(8, '\xFF'))}, 4, "bad.gguf");
  CheckFailure({"inspect", patched(16, std::string("\xFF\xFF\xFF\xFF\0\0\0\0", 8))}, 4, "bad.gguf");
  CheckFailure({"inspect", patched(24, std::string(8, '\x7F'))}, 4, "bad.gguf");
}

TEST_CASE("outputs that exist, or cannot be written, are refused before the work") {
  TemporaryFolder folder;
  WriteWhole(folder / "there.gguf", "precious");
  CheckFailure({"convert", kModel, folder / "there.gguf"}, 2, "--force");
  CheckFailure({"quantize", kModel, folder / "there.gguf", "--to", "q8_0"}, 2, "--force");
  CheckFailure({"report", kModel, "--output", folder / "there.gguf"}, 2, "--force");
  CHECK(ReadWhole(folder / "there.gguf") == "precious");
  CheckFailure({"convert", kModel, folder / "no/such/folder/o.gguf"}, 6, "o.gguf");
  CheckFailure({"quantize", kModel, folder / "no/such/folder/o.gguf", "--to", "q8_0"}, 6, "o.gguf");
  CheckFailure({"report", kModel, "--output", folder / "no/such/o.html"}, 6, "o.html");
  REQUIRE(RunProgram({"convert", kModel, folder / "there.gguf", "--force"}).exit_code == 0);
  CHECK(ReadWhole(folder / "there.gguf").rfind("GGUF", 0) == 0);
}

TEST_CASE("what cannot be packed or unpacked") {
  TemporaryFolder folder;
  const std::string half = folder / "half.gguf", packed = folder / "packed.gguf";
  REQUIRE(RunProgram({"convert", kModel, half}).exit_code == 0);
  REQUIRE(RunProgram({"quantize", kModel, packed, "--to", "q4_0", "--pack"}).exit_code == 0);
  CheckFailure({"pack", kModel, folder / "o"}, 2, "not a GGUF");
  CheckFailure({"pack", half, folder / "o"}, 2, "nothing to pack");
  CheckFailure({"pack", packed, folder / "o"}, 2, "packed already");
  CheckFailure({"pack", packed, packed, "--force"}, 2, "packed already");
  CheckFailure({"unpack", packed, packed, "--force"}, 2, "replace the input");
  CheckFailure({"unpack", half, folder / "o"}, 2, "packed");
  CheckFailure({"unpack", packed, half}, 2, "--force");
  CheckFailure({"unpack", packed, folder / "no/such/o"}, 6, "o");
  CheckFailure({"quantize", kModel, folder / "o", "--to", "f16", "--pack"}, 2, "nothing to pack");
  CHECK(!std::filesystem::exists(folder / "o"));
  const std::string whole = ReadWhole(packed);
  WriteWhole(folder / "cut.gguf", whole.substr(0, whole.size() - 1));
  for (const auto& command : ReadingCommands(folder / "cut.gguf", folder / "o")) {
    CheckFailure(command, 4, "cut.gguf");
  }
}

TEST_CASE("calibrations that are missing, of something else, or of another model") {
  TemporaryFolder folder, out;
  const std::string text = SourcePath("models/edgewise-stories-3M/stories.txt");
  const auto quantize = [&](const std::string& method, const std::string& calibration) {
    std::vector<std::string> command = {"quantize", kModel,     out / "o", "--to",
                                        "q4_0",     "--method", method};
    if (!calibration.empty()) command.insert(command.end(), {"--calibration", calibration});
    return command;
  };
  CheckFailure(quantize("best", text), 2, "rtn, imatrix, gptq");
  CheckFailure(quantize("gptq", ""), 2, "--calibration");
  CheckFailure(quantize("rtn", text), 2, "--calibration");
  CheckFailure(
      {"quantize", kModel, out / "o", "--to", "f16", "--method", "gptq", "--calibration", text}, 2,
      "no use");
  CheckFailure(quantize("gptq", folder / "absent"), 3, "absent");
  CheckFailure(quantize("imatrix", text), 2, "edgewise calibrate");
  WriteWhole(folder / "short.txt", "Once");
  CheckFailure(quantize("gptq", folder / "short.txt"), 2, "too few");
  REQUIRE(RunProgram({"convert", kModel, folder / "model.gguf"}).exit_code == 0);
  CheckFailure(quantize("gptq", folder / "model.gguf"), 4, "no calibration");
  REQUIRE(RunProgram(
              {"calibrate", kModel, text, folder / "sums.gguf", "--no-hessians", "--tokens", "600"})
              .exit_code == 0);
  for (const char* method : {"gptq", "awq", "awq+gptq"}) {
    CheckFailure(quantize(method, folder / "sums.gguf"), 3, "--no-hessians");
  }
  CheckFailure(quantize("smooth", text), 2, "edgewise calibrate");
  CheckFailure({"quantize", kModel, out / "o"}, 2, "--target-bytes");
  CheckFailure({"quantize", kModel, out / "o", "--target-bpw", "4"}, 2, "--calibration");
  CheckFailure({"quantize", kModel, out / "o", "--to", "q4_0", "--target-bytes", "1000"}, 2,
               "one of --to");
  CheckFailure({"calibrate", kModel}, 2, "MODEL TEXT OUTPUT");
  CheckFailure({"calibrate", kModel, text, out / "o", "--resume"}, 2, "nothing to resume");
  CheckFailure({"calibrate", kModel, text, folder / "sums.gguf"}, 2, "--force");
  CheckFailure({"calibrate", "--merge", folder / "model.gguf", "--output", out / "o"}, 4,
               "no calibration");
  CHECK(Empty(out.path()));
}

TEST_CASE("no permission to write") {
  if (::getuid() != 0) {
    MESSAGE("skipped: needs root, to run the program as another user");
    return;
  }
  TemporaryFolder folder;
  ::chmod(folder.path().c_str(), 0755);
  ProgramOptions options;
  options.user = 65534;
  for (const auto& arguments : std::vector<std::vector<std::string>>{
           {"convert", kModel, folder / "o.gguf"},
           {"quantize", kModel, folder / "o.gguf", "--to", "q8_0"},
           {"report", kModel, "--output", folder / "o.html"}}) {
    const ProgramResult result = RunProgram(arguments, options);
    if (result.exit_code == 98 || result.exit_code == 3) {
      MESSAGE("skipped: another user cannot reach the program or the model here: " << result.err);
      return;
    }
    CAPTURE(result.err);
    CHECK(result.exit_code == 6);
    CHECK(result.err.find("ermission") != std::string::npos);
    CHECK(Empty(folder.path()));
  }
}

TEST_CASE("a full disk gives one line and leaves nothing") {
  TemporaryFolder folder;
  if (::mount("tmpfs", folder.path().c_str(), "tmpfs", 0, "size=1m") != 0) {
    MESSAGE("skipped: cannot mount a small tmpfs here");
    return;
  }
  CheckFailure({"convert", kModel, folder / "o.gguf"}, 6, "No space left");
  CHECK(Empty(folder.path()));
  CheckFailure({"quantize", kModel, folder / "o.gguf", "--to", "q4_0"}, 6, "No space left");
  CHECK(Empty(folder.path()));
  const std::string filler(1 << 20, 'x');
  std::ofstream(folder / "filler") << filler.substr(0, (1 << 20) - 8192);
  CheckFailure({"report", kModel, "--formats", "q8_0", "--sample-tokens", "20", "--output",
                folder / "o.html"},
               6, "No space left");
  ::umount2(folder.path().c_str(), MNT_DETACH);
}

TEST_CASE("stdout that cannot be written is an error, not a success") {
  ProgramOptions options;
  options.stdout_path = "/dev/full";
  for (const auto& arguments :
       std::vector<std::vector<std::string>>{{"inspect", kModel},
                                             {"inspect", kModel, "--json"},
                                             {"--help"},
                                             {"tokenize", kModel, "--prompt", "x"}}) {
    CHECK(RunProgram(arguments, options).exit_code == 6);
  }
}

TEST_CASE("what cannot be audited") {
  TemporaryFolder folder;
  const std::string text = SourcePath("README.md");
  CheckFailure({"audit", kModel, kModel, "--file", folder / "absent"}, 3, "absent");
  CheckFailure({"audit", kModel, kModel, "--file", text, "--prompts", folder / "absent"}, 3,
               "absent");
  CheckFailure({"audit", kModel, kModel}, 2, "--file TEXT");
  WriteWhole(folder / "short", "a");
  CheckFailure({"audit", kModel, kModel, "--file", folder / "short"}, 2, "short");
  CheckFailure({"audit", kModel, kModel, "--file", text, "--output", folder / "no/such/o.html"}, 6,
               "o.html");
  CheckFailure({"audit", "data", folder / "absent"}, 3, "absent");
  CheckFailure({"audit", "data", text}, 4, "README.md: line 1");
  CheckFailure({"audit", "data", text}, 4, "--documents");
  WriteWhole(folder / "set.jsonl", "{\"text\":\"a\"}\n\n{\"words\":\"a\"}\n");
  CheckFailure({"audit", "data", folder / "set.jsonl"}, 4, "set.jsonl: line 3");
  WriteWhole(folder / "empty", "");
  CheckFailure({"audit", "data", folder / "empty"}, 4, "no example");
  WriteWhole(folder / "one", "{\"text\":\"a\"}\n");
  CheckFailure({"audit", "data", folder / "one", "--similarity", "2"}, 2, "similarity");
  CheckFailure({"audit", "data", folder / "one", "--model", folder / "absent"}, 3, "absent");
  EW_EXTERNAL_OR_SKIP(other, "models/stories260K/stories260K.bin");
  EW_EXTERNAL_OR_SKIP(tokenizer, "models/stories260K/tok512.bin");
  REQUIRE(
      RunProgram({"convert", other, folder / "other.gguf", "--tokenizer", tokenizer}).exit_code ==
      0);
  CheckFailure({"audit", kModel, folder / "other.gguf", "--file", text}, 2, "vocabular");
}

TEST_CASE("sparsities and methods of pruning that cannot be") {
  TemporaryFolder folder;
  const auto refused = [&](const char* method, const char* sparsity, const char* part) {
    const ProgramResult result =
        RunProgram({"prune", SourcePath("models/edgewise-stories-3M"), folder / "out.gguf",
                    "--method", method, "--sparsity", sparsity});
    CAPTURE(result.err);
    CHECK(result.exit_code == 2);
    CHECK(result.err.find(part) != std::string::npos);
    CHECK_FALSE(std::filesystem::exists(folder / "out.gguf"));
  };
  refused("magnitude", "120%", "120%");
  refused("magnitude", "4:2", "4:2");
  refused("magnitude", "3:7", "7");
  refused("magnitude", "half", "half");
  refused("wand", "50%", "wanda");
  refused("wanda", "50%", "--calibration");
}

TEST_CASE("structure that cannot be removed, and flags that do not go together") {
  TemporaryFolder folder;
  const auto refused = [&](std::vector<std::string> flags, const char* part) {
    std::vector<std::string> command = {"prune", kModel, folder / "out.gguf", "--method"};
    command.insert(command.end(), flags.begin(), flags.end());
    CheckFailure(command, 2, part);
    CHECK_FALSE(std::filesystem::exists(folder / "out.gguf"));
  };
  refused({"flap"}, "give --sparsity, --method mask with --mask, or any of --ffn");
  refused({"flap", "--ffn", "25%", "--sparsity", "2:4"}, "prune twice for both");
  refused({"flap", "--sparsity", "2:4"}, "no such method; known are magnitude");
  refused({"wanda", "--ffn", "25%"}, "known are flap");
  refused({"magnitude", "--sparsity", "50%", "--no-repair"}, "--no-repair has no use");
  refused({"magnitude", "--sparsity", "50%", "--multiple", "8"}, "--multiple has no use");
  refused({"flap", "--ffn", "250%"}, "--ffn: \"250%\" is no amount");
  refused({"flap", "--heads", "0"}, "--heads: \"0\" is no amount");
  refused({"flap", "--ffn", "25%"}, "--method flap needs --calibration");
  refused({"random", "--layers", "4"}, "--layers 4 leaves 0 of 4 layers");
  refused({"flap", "--ffn", "25%", "--permute"}, "--permute goes with --sparsity only");
  refused({"flap", "--ffn", "25%", "--save-mask", folder / "mask"}, "--save-mask goes with");
  refused({"mask", "--mask", kModel, "--sparsity", "50%"}, "--sparsity has no use with --mask");
  refused({"mask", "--mask", kModel, "--steps", "2"}, "--steps has no use with --mask");
  refused({"mask", "--sparsity", "50%"}, "--method mask needs --mask");
  refused({"magnitude", "--mask", kModel}, "--mask goes with --method mask only");
  refused({"mask", "--mask", kModel}, "keep every weight");
  refused({"magnitude", "--sparsity", "2:4", "--steps", "2"}, "not with magnitude");
  refused({"magnitude", "--sparsity", "50%", "--permute"}, "helps N:M sparsity");
  CheckFailure({"prune", kModel, folder / "out.gguf", "--method", "mask", "--mask", folder / "no"},
               3, "no");
}

TEST_CASE("values out of range are refused and named") {
  TemporaryFolder folder;
  CheckFailure({"run", kModel, "--top-p", "1.5"}, 2, "top");
  CheckFailure({"run", kModel, "--temperature", "-1"}, 2, "temperature");
  CheckFailure({"run", kModel, "--ctx", "100000"}, 2, "100000");
  CheckFailure({"run", kModel, "--kv", "q3"}, 2, "--kv");
  CheckFailure({"run", kModel, "--draft-max", "0"}, 2, "guess");
  CheckFailure({"run", kModel, "--draft", folder / "absent"}, 3, "absent");
  CHECK(RunProgram({"run", kModel, "--draft", kModel, "--prompt-lookup"}).exit_code == 2);
  CheckFailure({"eval", kModel, "--perplexity", kModel, "--kv", "q3"}, 2, "--kv");
  CheckFailure({"bench", kModel, "--sequences", "0"}, 2, "sequences");
  CheckFailure({"bench", kModel, "--scaling", "--scaling-tokens", "9"}, 2, "128");
  CheckFailure({"run", kModel, "--logit-bias", "5"}, 2, "ID=VALUE");
  CheckFailure({"run", kModel, "--logit-bias", "99999=1"}, 2, "99999");
  CheckFailure({"quantize", kModel, folder / "o", "--to", "q9_z"}, 2, "q9_z");
  CheckFailure({"quantize", kModel, folder / "o", "--to", "q4_0", "--tensor-type", "no_such=q8_0"},
               2, "no_such");
  CheckFailure({"quantize", kModel, folder / "o", "--to", "q4_0", "--tensor-type", "attn=zzz"}, 2,
               "zzz");
  CheckFailure({"convert", kModel, folder / "o", "--to", "q4_0"}, 2, "q4_0");
  CheckFailure({"detokenize", kModel, "--ids", "1,banana"}, 2, "banana");
  CheckFailure({"detokenize", kModel, "--ids", "999999"}, 2, "999999");
  CheckFailure({"report", kModel, "--formats", "q4_0,zzz", "--output", folder / "o"}, 2, "zzz");
  CheckFailure({"chat", kModel}, 9, "chat template");
  CheckFailure({"bench", kModel, "--prompt-tokens", "100000"}, 2, "100000");
  WriteWhole(folder / "short", "a");
  CheckFailure({"eval", kModel, "--perplexity", folder / "short"}, 2, "short");
  CheckFailure({"eval", kModel, "--perplexity", folder / "absent"}, 3, "absent");
  const std::string long_prompt(20000, 'x');
  CheckFailure({"run", kModel, "--prompt", long_prompt}, 2, "256");
}

}  // namespace
}  // namespace edgewise
