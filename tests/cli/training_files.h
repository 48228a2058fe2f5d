// What tests of training through the program learn from.
#pragma once

#include <string>

#include "tests/cli/program.h"

namespace edgewise {

// Stories of the bundled model, and the config of a small model with its tokenizer.
struct TrainingFiles {
  TemporaryFolder folder;
  std::string text = folder / "text.txt", config = folder / "config.json";

  TrainingFiles() {
    WriteWhole(text,
               ReadWhole(SourcePath("models/edgewise-stories-3M/stories.txt")).substr(0, 40000));
    WriteWhole(config,
               R"({"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 32,
                   "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2,
                   "num_key_value_heads": 1, "head_dim": 16, "vocab_size": 2048,
                   "max_position_embeddings": 256, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
                   "tie_word_embeddings": true})");
  }
};

}  // namespace edgewise
