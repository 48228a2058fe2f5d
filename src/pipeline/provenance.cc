#include "pipeline/provenance.h"

#include <string>
#include <utility>
#include <vector>

namespace edgewise {

void PushHistory(Metadata* metadata) {
  const auto recipe = metadata->GetString("edgewise.recipe");
  const auto version = metadata->GetString("edgewise.version");
  const auto digest = metadata->GetString("edgewise.source.sha256");
  if (!recipe || !version || !digest) return;
  std::vector<std::string> history;
  if (const auto* before = metadata->FindStrings("edgewise.history")) history = *before;
  Json step;
  step.Set("recipe", *recipe).Set("version", *version).Set("source_sha256", *digest);
  history.push_back(step.Dump());
  metadata->Set("edgewise.history", MetaArray(std::move(history)));
}

void SetProvenance(const Json& recipe, const SourceHash& source, Metadata* metadata) {
  metadata->Set("edgewise.version", std::string(EDGEWISE_VERSION));
  metadata->Set("edgewise.recipe", recipe.Dump());
  metadata->Set("edgewise.source.sha256", source.digest);
  metadata->Set("edgewise.source.files", MetaArray(source.files));
}

}  // namespace edgewise
