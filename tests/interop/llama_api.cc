#include "tests/interop/llama_api.h"

#include <dlfcn.h>

#include <cstdio>
#include <cstring>
#include <filesystem>

namespace edgewise::interop {
namespace {

constexpr int32_t kF16 = 1, kTypeCount = 43, kMostlyQ8 = 7;

// Returns the library of this name's stem in the folder: the release is a part of the file's name.
std::string FindLibrary(const std::string& folder, const std::string& stem) {
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(folder, error)) {
    const std::string name = entry.path().filename().string();
    if (name == stem + ".so" || (name.starts_with(stem + ".v") && name.ends_with(".so")))
      return entry.path().string();
  }
  return {};
}

template <class Function>
bool Resolve(void* library, const char* name, Function* function) {
  void* symbol = dlsym(library, name);
  static_assert(sizeof(symbol) == sizeof(*function));
  std::memcpy(function, &symbol, sizeof(symbol));
  return symbol != nullptr;
}

const char* FirstWrongDefault(const LlamaApi& api) {
  const ModelParams model = api.model_default_params();
  if (model.n_gpu_layers != -1 || model.split_mode != 1 || model.load_mode != -1 ||
      model.lazy_mode != 1 || model.tensor_split || model.kv_overrides || model.vocab_only ||
      !model.use_extra_bufts || model.no_alloc) {
    return "llama_model_params";
  }
  const ContextParams context = api.context_default_params();
  if (context.n_ctx != 512 || context.n_batch != 2048 || context.n_ubatch != 512 ||
      context.n_seq_max != 1 || context.n_outputs_max_per_seq != 1 || context.n_threads != 4 ||
      context.flash_attn_type != -1 || context.yarn_ext_factor != -1 ||
      context.defrag_thold != -1 || context.type_k != kF16 || context.type_v != kF16 ||
      context.embeddings || !context.offload_kqv || !context.no_perf || !context.swa_full ||
      context.samplers || context.n_samplers != 0 || context.ctx_other) {
    return "llama_context_params";
  }
  const QuantizeParams quantize = api.model_quantize_default_params();
  if (quantize.nthread != 0 || quantize.ftype != kMostlyQ8 ||
      quantize.output_tensor_type != kTypeCount || quantize.token_embedding_type != kTypeCount ||
      quantize.allow_requantize || !quantize.quantize_output_tensor || quantize.pure ||
      quantize.imatrix || quantize.prune_layers || quantize.max_buf_size != size_t{8} << 30) {
    return "llama_model_quantize_params";
  }
  return nullptr;
}

void LogErrors(int level, const char* text, void*) {
  constexpr int kError = 4;
  if (level == kError) std::fputs(text, stderr);
}

}  // namespace

std::string LlamaApi::Open(const std::string& folder) {
  const std::string llama_path = FindLibrary(folder, "libllama"),
                    ggml_path = FindLibrary(folder, "libggml");
  if (llama_path.empty() || ggml_path.empty())
    return "no libllama*.so and libggml*.so in " + folder;
  void* const llama = dlopen(llama_path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (!llama) return dlerror();
  void* const ggml = dlopen(ggml_path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (!ggml) return dlerror();
  if (!Resolve(llama, "llama_version", &version))
    return llama_path + " has no llama_version: another release";
  if (std::strcmp(version(), kLlamaVersion) != 0) {
    return llama_path + " is release " + version() + ", this program is written for " +
           kLlamaVersion;
  }
  const bool complete =
      Resolve(llama, "llama_log_set", &log_set) &&
      Resolve(llama, "llama_backend_init", &backend_init) &&
      Resolve(llama, "llama_model_default_params", &model_default_params) &&
      Resolve(llama, "llama_context_default_params", &context_default_params) &&
      Resolve(llama, "llama_model_quantize_default_params", &model_quantize_default_params) &&
      Resolve(llama, "llama_model_load_from_file", &model_load_from_file) &&
      Resolve(llama, "llama_model_free", &model_free) &&
      Resolve(llama, "llama_init_from_model", &init_from_model) &&
      Resolve(llama, "llama_free", &free) && Resolve(llama, "llama_get_memory", &get_memory) &&
      Resolve(llama, "llama_memory_clear", &memory_clear) &&
      Resolve(llama, "llama_model_get_vocab", &model_get_vocab) &&
      Resolve(llama, "llama_vocab_n_tokens", &vocab_n_tokens) &&
      Resolve(llama, "llama_vocab_bos", &vocab_bos) &&
      Resolve(llama, "llama_vocab_get_add_bos", &vocab_get_add_bos) &&
      Resolve(llama, "llama_adapter_lora_init", &adapter_lora_init) &&
      Resolve(llama, "llama_set_adapters_lora", &set_adapters_lora) &&
      Resolve(llama, "llama_decode", &decode) &&
      Resolve(llama, "llama_get_logits_ith", &get_logits_ith) &&
      Resolve(llama, "llama_model_quantize", &model_quantize) &&
      Resolve(ggml, "ggml_backend_load_all_from_path", &load_all_backends);
  if (!complete) return llama_path + " lacks a function that this program calls";
  if (const char* wrong = FirstWrongDefault(*this)) {
    return std::string("the default values of ") + wrong + " are not those of release " +
           kLlamaVersion;
  }
  log_set(LogErrors, nullptr);
  load_all_backends(folder.c_str());
  backend_init();
  return {};
}

}  // namespace edgewise::interop
