#include "pipeline/fit_space.h"

#include <algorithm>
#include <utility>

#include "base/check.h"
#include "base/strings.h"
#include "base/yaml.h"

namespace edgewise {
namespace {

struct SpaceRow {
  const char* name;
  bool calibrated;     // reads the calibration text
  bool sparse;         // leaves weights out
  const char* passes;  // YAML
};

// From the most bits to the fewest, about. "mix-4.5" has formats for each tensor that cost least
// in a file of so many bits per weight.
constexpr SpaceRow kSpace[] = {
    {"q8_0", false, false, "[{quantize: {to: q8_0}}]"},
    {"q6_k", true, false, "[calibrate, {quantize: {to: q6_k, method: gptq}}]"},
    {"q5_k_m", true, false, "[calibrate, {quantize: {to: q5_k_m, method: gptq}}]"},
    {"q5_k_s", true, false, "[calibrate, {quantize: {to: q5_k_s, method: gptq}}]"},
    {"mix-6.0", true, false, "[calibrate, {quantize: {target_bpw: 6.0, method: gptq}}]"},
    {"s24_q8", true, true, "[calibrate, {quantize: {to: s24_q8, method: gptq}}]"},
    {"alps+s24_q8", true, true,
     "[{prune: {method: alps, sparsity: '2:4'}}, calibrate, {quantize: {to: s24_q8, method: "
     "gptq}}]"},
    {"bm_q8", true, true, "[calibrate, {quantize: {to: bm_q8, method: gptq}}]"},
    {"alps+bm_q8", true, true,
     "[{prune: {method: alps, sparsity: '32:64'}}, calibrate, {quantize: {to: bm_q8, method: "
     "gptq}}]"},
    {"mix-5.5", true, false, "[calibrate, {quantize: {target_bpw: 5.5, method: gptq}}]"},
    {"mix-5.0", true, false, "[calibrate, {quantize: {target_bpw: 5.0, method: gptq}}]"},
    {"q4_k_m", true, false, "[calibrate, {quantize: {to: q4_k_m, method: gptq}}]"},
    {"ffn-10%+q4_k_m", true, true,
     "[{prune: {method: flap, ffn: '10%'}}, calibrate, {quantize: {to: q4_k_m, method: gptq}}]"},
    {"ffn-25%+q4_k_m", true, true,
     "[{prune: {method: flap, ffn: '25%'}}, calibrate, {quantize: {to: q4_k_m, method: gptq}}]"},
    {"ffn-25%+heads-25%+q4_k_m", true, true,
     "[{prune: {method: flap, ffn: '25%', heads: '25%'}}, calibrate, {quantize: {to: q4_k_m, "
     "method: gptq}}]"},
    {"q4_k_s", true, false, "[calibrate, {quantize: {to: q4_k_s, method: gptq}}]"},
    {"iq4_nl", true, false, "[calibrate, {quantize: {to: iq4_nl, method: gptq}}]"},
    {"q4_0", true, false, "[calibrate, {quantize: {to: q4_0, method: gptq}}]"},
    {"iq4_xs", true, false, "[calibrate, {quantize: {to: iq4_xs, method: gptq}}]"},
    {"mix-4.5", true, false, "[calibrate, {quantize: {target_bpw: 4.5, method: gptq}}]"},
    {"q3_k_l", true, false, "[calibrate, {quantize: {to: q3_k_l, method: gptq}}]"},
    {"q3_k_m", true, false, "[calibrate, {quantize: {to: q3_k_m, method: gptq}}]"},
    {"mix-4.0", true, false, "[calibrate, {quantize: {target_bpw: 4.0, method: gptq}}]"},
    {"s24_q4", true, true, "[calibrate, {quantize: {to: s24_q4, method: gptq}}]"},
    {"alps+s24_q4", true, true,
     "[{prune: {method: alps, sparsity: '2:4'}}, calibrate, {quantize: {to: s24_q4, method: "
     "gptq}}]"},
    {"bm_q4", true, true, "[calibrate, {quantize: {to: bm_q4, method: gptq}}]"},
    {"alps+bm_q4", true, true,
     "[{prune: {method: alps, sparsity: '32:64'}}, calibrate, {quantize: {to: bm_q4, method: "
     "gptq}}]"},
    {"q3_k_s", true, false, "[calibrate, {quantize: {to: q3_k_s, method: gptq}}]"},
    {"mix-3.5", true, false, "[calibrate, {quantize: {target_bpw: 3.5, method: gptq}}]"},
    {"q2_k", true, false, "[calibrate, {quantize: {to: q2_k, method: gptq}}]"},
    {"q2_k_s", true, false, "[calibrate, {quantize: {to: q2_k_s, method: gptq}}]"},
    {"mix-3.0", true, false, "[calibrate, {quantize: {target_bpw: 3.0, method: gptq}}]"},
};

FitCandidate ToCandidate(const SpaceRow& row) {
  const auto passes = ParseYaml(row.passes);
  EW_CHECK(passes.has_value());
  FitCandidate candidate;
  candidate.name = row.name;
  candidate.passes = passes->root();
  candidate.calibrated = row.calibrated;
  candidate.sparse = row.sparse;
  return candidate;
}

}  // namespace

Result<std::vector<FitCandidate>> FitSpace(const std::vector<std::string>& names,
                                           uint64_t file_budget) {
  std::vector<FitCandidate> candidates;
  std::vector<std::string> known;
  const auto add = [&](FitCandidate candidate) {
    known.push_back(candidate.name);
    if (names.empty() || std::find(names.begin(), names.end(), candidate.name) != names.end()) {
      candidates.push_back(std::move(candidate));
    }
  };
  for (const SpaceRow& row : kSpace) add(ToCandidate(row));
  if (file_budget > 0) {
    const std::string bytes = std::to_string(file_budget), name = "mix-" + bytes + "-bytes";
    const std::string passes =
        "[calibrate, {quantize: {target_bytes: " + bytes + ", method: gptq}}]";
    add(ToCandidate({name.c_str(), true, false, passes.c_str()}));
  }
  for (const std::string& name : names) {
    if (std::find(known.begin(), known.end(), name) != known.end()) continue;
    return MakeError(Code::kInvalidArgument, "no candidate is named %s; known are %s",
                     Quote(name).c_str(), Join(known, ", ").c_str());
  }
  return candidates;
}

FitCandidate ReferenceOf(const FitCandidate& candidate) {
  Json passes{JsonArray{}};
  if (const JsonArray* all = candidate.passes.AsArray()) {
    for (const Json& pass : *all) {
      const Json* prune = pass.Find("prune");
      if (prune == nullptr || prune->Find("sparsity") != nullptr) continue;
      Json removed = *prune;
      removed.Set("method", "random").Set("repair", false);
      passes.Append(Json().Set("prune", std::move(removed)));
    }
  }
  passes.Append(Json().Set("quantize", Json().Set("to", kReferenceFormat)));
  FitCandidate reference;
  reference.name = "reference";
  reference.passes = std::move(passes);
  return reference;
}

}  // namespace edgewise
