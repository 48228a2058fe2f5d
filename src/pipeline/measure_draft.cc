#include "pipeline/measure_draft.h"

#include <algorithm>
#include <memory>
#include <numeric>
#include <utility>
#include <vector>

#include "base/check.h"
#include "base/strings.h"
#include "engine/drafter.h"
#include "engine/engine.h"
#include "engine/session.h"

namespace edgewise {
namespace {

constexpr size_t kMaxPrompts = 16;
constexpr uint32_t kPromptTokens = 32;
constexpr uint32_t kNewTokens = 64;

Result<Generation> Write(Session* session, std::span<const int32_t> prompt, Drafter* drafter) {
  session->Clear();
  EW_TRY(session->Append(prompt));
  GenerateOptions options;
  options.sampler.temperature = 0;
  options.max_tokens = std::min(kNewTokens, session->context() - kPromptTokens);
  options.drafter = drafter;
  return session->Generate(options);
}

double DecodeSeconds(const Generation& generation) {
  return std::accumulate(generation.token_seconds.begin(), generation.token_seconds.end(), 0.0);
}

}  // namespace

Result<DraftReport> MeasureDraft(const DraftJob& job, const train::Corpus& documents,
                                 Progress* progress) {
  EngineOptions options;
  options.threads = job.threads;
  EW_TRY(auto draft, Engine::Load(job.draft, options));
  const uint32_t draft_context = draft->model().spec().context_length;
  options.tokenizer_path = job.tokenizer_path;
  EW_TRY(const auto target, Engine::Load(job.target, options));
  SessionOptions session_options;
  session_options.context =
      std::min({target->model().spec().context_length, draft_context, kPromptTokens + kNewTokens});
  if (session_options.context <= kPromptTokens) {
    return MakeError(Code::kInvalidArgument,
                     "a context of %u tokens has no room for a prompt of %u and an answer",
                     session_options.context, kPromptTokens);
  }
  EW_TRY(Session session, Session::Create(target.get(), session_options));
  EW_TRY(const auto drafter,
         DraftModel::Create(std::move(draft), target.get(), session.context()).In(job.draft));
  DraftReport report;
  for (size_t d = 0; d < documents.size() && report.prompts < kMaxPrompts; ++d) {
    if (documents.tokens(d).size() <= kPromptTokens) continue;
    progress->Update("drafting", report.prompts, kMaxPrompts);
    if (progress->Cancelled()) return MakeError(Code::kCancelled, "stopped while measuring");
    const auto prompt = documents.tokens(d).first(kPromptTokens);
    EW_TRY(const Generation alone, Write(&session, prompt, nullptr));
    EW_TRY(const Generation together, Write(&session, prompt, drafter.get()));
    EW_CHECK(alone.ids == together.ids);  // what speculation promises
    ++report.prompts;
    report.tokens += alone.ids.size();
    report.drafted += together.drafted;
    report.accepted += together.accepted;
    report.seconds += DecodeSeconds(alone);
    report.drafted_seconds += DecodeSeconds(together);
  }
  if (report.prompts > 0) return report;
  return MakeError(Code::kInvalidArgument,
                   "no held-out document is longer than the %u tokens of a prompt, so the drafter "
                   "cannot be measured",
                   kPromptTokens);
}

Json ToJson(const DraftReport& r) {
  return Json()
      .Set("prompts", r.prompts)
      .Set("tokens", r.tokens)
      .Set("drafted", r.drafted)
      .Set("accepted", r.accepted)
      .Set("acceptance", r.acceptance())
      .Set("seconds", r.seconds)
      .Set("drafted_seconds", r.drafted_seconds)
      .Set("speed_up", r.speed_up());
}

}  // namespace edgewise
