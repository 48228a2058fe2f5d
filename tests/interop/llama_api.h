// The part of llama.cpp's C interface that llama_peer calls, as release 0.5.0 of its libraries lays
// it out in memory. Another release has other structures: LlamaApi::Open compares the version and
// every default value that it knows.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace edgewise::interop {

inline constexpr char kLlamaVersion[] = "0.5.0-dev";

struct LlamaModel;
struct LlamaContext;
struct LlamaVocab;
struct LlamaMemory;
struct LlamaAdapter;

struct ModelParams {
  void* devices;
  const void* tensor_buft_overrides;
  int32_t n_gpu_layers;
  int32_t split_mode;
  int32_t load_mode;
  int32_t lazy_mode;
  int32_t main_gpu;
  const float* tensor_split;
  bool (*progress_callback)(float progress, void* user_data);
  void* progress_callback_user_data;
  const void* kv_overrides;
  bool vocab_only;
  bool check_tensors;
  bool use_extra_bufts;
  bool no_host;
  bool no_alloc;
  bool load_mtp;
};
static_assert(sizeof(ModelParams) == 80 && offsetof(ModelParams, vocab_only) == 72);

struct ContextParams {
  uint32_t n_ctx;
  uint32_t n_batch;
  uint32_t n_ubatch;
  uint32_t n_seq_max;
  uint32_t n_rs_seq;
  uint32_t n_outputs_max;
  uint32_t n_outputs_max_per_seq;
  int32_t n_threads;
  int32_t n_threads_batch;
  int32_t ctx_type;
  int32_t rope_scaling_type;
  int32_t pooling_type;
  int32_t attention_type;
  int32_t flash_attn_type;
  float rope_freq_base;
  float rope_freq_scale;
  float yarn_ext_factor;
  float yarn_attn_factor;
  float yarn_beta_fast;
  float yarn_beta_slow;
  uint32_t yarn_orig_ctx;
  float defrag_thold;
  void* cb_eval;
  void* cb_eval_user_data;
  int32_t type_k;
  int32_t type_v;
  void* abort_callback;
  void* abort_callback_data;
  bool embeddings;
  bool offload_kqv;
  bool no_perf;
  bool op_offload;
  bool swa_full;
  bool kv_unified;
  void* samplers;
  size_t n_samplers;
  LlamaContext* ctx_other;
};
static_assert(sizeof(ContextParams) == 160 && offsetof(ContextParams, cb_eval) == 88);

struct QuantizeParams {
  int32_t nthread;
  int32_t ftype;
  int32_t output_tensor_type;
  int32_t token_embedding_type;
  bool allow_requantize;
  bool quantize_output_tensor;
  bool only_copy;
  bool pure;
  bool keep_split;
  bool dry_run;
  const void* imatrix;
  const void* kv_overrides;
  const void* tt_overrides;
  const int32_t* prune_layers;
  size_t max_buf_size;
};
static_assert(sizeof(QuantizeParams) == 64 && offsetof(QuantizeParams, imatrix) == 24);

struct ImatrixEntry {
  const char* name;
  const float* data;
  size_t size;
};

struct Batch {
  int32_t n_tokens;
  int32_t* token;
  float* embd;
  int32_t* pos;
  int32_t* n_seq_id;
  int32_t** seq_id;
  int8_t* logits;
};

// The functions of one opened library. Stays open until the program ends.
struct LlamaApi {
  const char* (*version)();
  void (*log_set)(void (*callback)(int level, const char* text, void* user_data), void* user_data);
  void (*backend_init)();
  ModelParams (*model_default_params)();
  ContextParams (*context_default_params)();
  QuantizeParams (*model_quantize_default_params)();
  LlamaModel* (*model_load_from_file)(const char* path, ModelParams params);
  void (*model_free)(LlamaModel* model);
  LlamaContext* (*init_from_model)(LlamaModel* model, ContextParams params);
  void (*free)(LlamaContext* context);
  LlamaMemory* (*get_memory)(const LlamaContext* context);
  void (*memory_clear)(LlamaMemory* memory, bool data);
  const LlamaVocab* (*model_get_vocab)(const LlamaModel* model);
  int32_t (*vocab_n_tokens)(const LlamaVocab* vocab);
  int32_t (*vocab_bos)(const LlamaVocab* vocab);
  bool (*vocab_get_add_bos)(const LlamaVocab* vocab);
  LlamaAdapter* (*adapter_lora_init)(LlamaModel* model, const char* path);
  int32_t (*set_adapters_lora)(LlamaContext* context, LlamaAdapter** adapters, size_t count,
                               float* scales);
  int32_t (*decode)(LlamaContext* context, Batch batch);
  float* (*get_logits_ith)(LlamaContext* context, int32_t index);
  uint32_t (*model_quantize)(const char* in, const char* out, const QuantizeParams* params);
  void (*load_all_backends)(const char* folder);  // ggml_backend_load_all_from_path

  // Opens libllama*.so of `folder` and checks it. Returns an empty string, or what is wrong.
  std::string Open(const std::string& folder);
};

}  // namespace edgewise::interop
