// Test only: the bundled model and text.
#pragma once

#include <doctest/doctest.h>

#include <memory>
#include <string>

#include "base/file.h"
#include "engine/engine.h"
#include "tests/test_data.h"

namespace edgewise {

inline std::unique_ptr<Engine> LoadTestEngine(const std::string& path, int threads = 1) {
  EngineOptions options;
  options.threads = threads;
  auto engine = Engine::Load(path, options);
  REQUIRE_MESSAGE(engine.has_value(), (engine ? "" : engine.error().message));
  return *std::move(engine);
}

inline std::string BundledModel() { return SourcePath("models/edgewise-stories-3M"); }

// Loaded once per program.
inline Engine* BundledEngine() {
  static const std::unique_ptr<Engine> engine = LoadTestEngine(BundledModel());
  return engine.get();
}

// The first bytes of the bundled stories.
inline std::string BundledText(size_t bytes) {
  auto text = ReadFile(SourcePath("models/edgewise-stories-3M/stories.txt"), 16 << 20);
  REQUIRE(text);
  REQUIRE(text->size() >= bytes);
  return text->substr(0, bytes);
}

}  // namespace edgewise
