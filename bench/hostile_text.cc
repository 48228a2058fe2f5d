// Times tokenizers on 1 MB of text made to be slow; prints a JSON line per vocabulary and text.
// usage: hostile_text VOCABULARY.gguf ... (--unigram before a file with scores: encode it as
// Unigram)
#include <ctime>

#include <algorithm>
#include <cstdio>
#include <memory>
#include <string>
#include <string_view>

#include "base/json.h"
#include "base/rng.h"
#include "engine/vocab_metadata.h"
#include "formats/gguf.h"
#include "text/tokenizer.h"

namespace edgewise {
namespace {

constexpr size_t kBytes = 1'000'000;
constexpr int kRounds = 5;

std::string Repeated(std::string_view part) {
  std::string text;
  while (text.size() + part.size() <= kBytes) text += part;
  return text;
}

std::string Random(uint64_t values, char first) {
  Rng rng(1);
  std::string text(kBytes, '\0');
  for (char& c : text) c = static_cast<char>(static_cast<uint64_t>(first) + rng.Below(values));
  return text;
}

// Processor time of this thread, so that other load on the machine counts little.
double CpuMilliseconds() {
  timespec now;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) * 1e3 + static_cast<double>(now.tv_nsec) * 1e-6;
}

Status Measure(const std::string& path, bool unigram) {
  EW_TRY(const GgufFile file, GgufFile::Open(path));
  EW_TRY(Vocab vocab, VocabFromMetadata(file.metadata()).In(path));
  if (unigram) vocab.kind = TokenizerKind::kUnigram;
  EW_TRY(const auto tokenizer, Tokenizer::Create(std::move(vocab)).In(path));
  const struct {
    const char* name;
    std::string text;
  } inputs[] = {{"letter a", Repeated("a")},
                {"spaces", Repeated(" ")},
                {"newlines", Repeated("\n")},
                {"Vietnamese", Repeated("Tiếng Việt có sáu thanh điệu, và nhiều dấu. ")},
                {"random letters", Random(26, 'a')},
                {"random bytes", Random(256, '\0')}};
  for (const auto& input : inputs) {
    Json line;
    line.Set("vocabulary", path).Set("unigram", unigram).Set("text", input.name);
    double best = 0;
    for (int round = 0; round < kRounds; ++round) {
      const double start = CpuMilliseconds();
      const auto ids = tokenizer->Encode(input.text);
      const double spent = CpuMilliseconds() - start;
      best = round == 0 ? spent : std::min(best, spent);
      if (ids) {
        line.Set("tokens", uint64_t{ids->size()});
      } else {
        line.Set("error", ids.error().message);
      }
    }
    line.Set("rounds", kRounds).Set("best_cpu_ms", best);
    std::printf("%s\n", line.Dump().c_str());
  }
  return Ok{};
}

int Run(int argc, char** argv) {
  bool unigram = false;
  for (int i = 1; i < argc; ++i) {
    if (std::string_view(argv[i]) == "--unigram") {
      unigram = true;
      continue;
    }
    const auto status = Measure(argv[i], unigram);
    unigram = false;
    if (status) continue;
    std::fprintf(stderr, "hostile_text: %s\n", status.error().message.c_str());
    return 1;
  }
  return 0;
}

}  // namespace
}  // namespace edgewise

int main(int argc, char** argv) { return edgewise::Run(argc, argv); }
