#include "train/on_policy.h"

#include <algorithm>
#include <span>

#include "base/rng.h"
#include "base/strings.h"
#include "kernels/kernels.h"

namespace edgewise::train {
namespace {

constexpr size_t kSampleRows = 256;  // whose logits are in memory together
// Between seeds. Not the step by which an Rng seeds its state: neighbours would share parts of it.
constexpr uint64_t kSeedStep = 0xd1342543de82ef95u;

// Draws a token of the softmax of the logits (n), which it overwrites.
int32_t SampleToken(Rng* rng, size_t n, float* logits) {
  kernels::Active().softmax(logits, n);
  const double u = rng->Uniform();
  double sum = 0;
  size_t last = 0;
  for (size_t i = 0; i < n; ++i) {
    if (!(logits[i] > 0)) continue;
    last = i;
    sum += static_cast<double>(logits[i]);
    if (u < sum) break;
  }
  return static_cast<int32_t>(last);
}

// Appends tokens with what follows each, `sampled` of them by the student.
void Append(std::span<const int32_t> tokens, std::span<const int32_t> targets, bool sampled,
            Batch* batch) {
  batch->tokens.insert(batch->tokens.end(), tokens.begin(), tokens.end());
  batch->targets.insert(batch->targets.end(), targets.begin(), targets.end());
  batch->sampled.resize(batch->tokens.size(), sampled);
}

}  // namespace

Status CheckOnPolicy(const OnPolicyOptions& options) {
  if (!(options.fraction >= 0 && options.fraction <= 1)) {
    return MakeError(Code::kInvalidArgument,
                     "the share of sequences that the student writes must be from 0 to 1, not %g",
                     options.fraction);
  }
  if (options.tokens == 0) {
    return MakeError(Code::kInvalidArgument,
                     "a student that writes must write at least one token of a sequence");
  }
  return Ok{};
}

std::vector<OnPolicy::Draft> OnPolicy::Draw(uint64_t seed, const Batch& batch) const {
  std::vector<Draft> drafts;
  size_t row = 0;
  for (size_t i = 0; i < batch.lengths.size(); row += batch.lengths[i++]) {
    Rng rng(seed + (i + 1) * kSeedStep);
    const uint32_t length = batch.lengths[i];
    const auto targets = std::span(batch.targets).subspan(row, length);
    const auto learned = std::find_if(targets.begin(), targets.end(),
                                      [](int32_t target) { return target != kNoTarget; });
    if (rng.Uniform() >= options_.fraction || learned == targets.end()) continue;
    // The token before the first target is the last of a prompt; a text has none.
    const auto asked = static_cast<uint32_t>(learned - targets.begin());
    const uint32_t most = std::min(options_.tokens, length - asked);
    const uint32_t prompt = asked > 0 ? asked + 1 : length - most + 1;
    drafts.push_back({i, row, prompt, most, rng.Next(), {}});
  }
  return drafts;
}

bool OnPolicy::Ended(const Draft& draft) const {
  return draft.sampled.size() == draft.most ||
         std::ranges::find(options_.ends, draft.sampled.back()) != options_.ends.end();
}

void OnPolicy::Sample(const float* weights, const std::vector<Draft*>& drafts,
                      const std::vector<uint32_t>& rows) {
  for (size_t first = 0; first < rows.size(); first += kSampleRows) {
    const auto chunk = std::span(rows).subspan(first, std::min(kSampleRows, rows.size() - first));
    logits_.resize(std::max(logits_.size(), chunk.size() * vocab_size_));
    network_.Logits(weights, chunk, logits_.data());
    pool_->ParallelFor(chunk.size(), 1, [&](size_t begin, size_t end, int) {
      for (size_t i = begin; i < end; ++i) {
        Draft& draft = *drafts[first + i];
        Rng rng(draft.seed + draft.sampled.size() * kSeedStep);
        draft.sampled.push_back(SampleToken(&rng, vocab_size_, logits_.data() + i * vocab_size_));
      }
    });
  }
}

Status OnPolicy::Write(const float* weights, const Batch& batch, std::vector<Draft>* drafts) {
  Batch prompts;
  std::vector<uint32_t> room, rows;
  std::vector<Draft*> writing;
  for (Draft& draft : *drafts) {
    const auto tokens = std::span(batch.tokens).subspan(draft.row, draft.prompt);
    prompts.tokens.insert(prompts.tokens.end(), tokens.begin(), tokens.end());
    prompts.lengths.push_back(draft.prompt);
    room.push_back(draft.prompt + draft.most - 1);  // the last token is a target only
    rows.push_back(static_cast<uint32_t>(prompts.tokens.size() - 1));
    draft.sampled.reserve(draft.most);
    writing.push_back(&draft);
  }
  prompts.targets.assign(prompts.tokens.size(), kNoTarget);
  EW_TRY(network_.Open(prompts, room, weights));
  Sample(weights, writing, rows);
  while (true) {
    std::erase_if(writing, [this](const Draft* draft) { return Ended(*draft); });
    if (writing.empty()) return Ok{};
    std::vector<uint32_t> sequences;
    std::vector<int32_t> tokens;
    rows.clear();
    for (const Draft* draft : writing) {
      rows.push_back(static_cast<uint32_t>(rows.size()));
      sequences.push_back(static_cast<uint32_t>(draft - drafts->data()));
      tokens.push_back(draft->sampled.back());
    }
    EW_TRY(network_.Append(sequences, tokens, weights));
    Sample(weights, writing, rows);
  }
}

Status OnPolicy::Rewrite(const float* weights, uint64_t seed, Batch* batch) {
  std::vector<Draft> drafts = Draw(seed, *batch);
  if (drafts.empty()) return Ok{};
  EW_TRY(Write(weights, *batch, &drafts));
  Batch written;
  auto draft = drafts.begin();
  size_t row = 0;
  for (size_t i = 0; i < batch->lengths.size(); row += batch->lengths[i++]) {
    const size_t before = written.size();
    const auto tokens = std::span(batch->tokens).subspan(row, batch->lengths[i]);
    if (draft == drafts.end() || draft->sequence != i) {
      Append(tokens, std::span(batch->targets).subspan(row, tokens.size()), false, &written);
    } else {
      const std::vector<int32_t> none(draft->prompt - 1, kNoTarget);
      const std::span<const int32_t> sampled = draft->sampled;
      Append(tokens.first(none.size()), none, false, &written);
      // The prompt's last token and all sampled ones but the last are followed by a sampled one.
      Append(tokens.subspan(none.size(), 1), sampled.first(1), true, &written);
      Append(sampled.first(sampled.size() - 1), sampled.subspan(1), true, &written);
      ++draft;
    }
    written.lengths.push_back(static_cast<uint32_t>(written.size() - before));
  }
  *batch = std::move(written);
  return Ok{};
}

}  // namespace edgewise::train
