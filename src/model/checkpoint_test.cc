// Reading checkpoints: what they hold, what they write as metadata, what is refused.
#include "model/checkpoint.h"

#include <doctest/doctest.h>

#include <cstring>
#include <fstream>
#include <functional>
#include <string>
#include <vector>

#include "formats/gguf.h"
#include "model/tiny_model.h"
#include "tests/test_data.h"

namespace edgewise {
namespace {

bool Contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

Error OpenError(const std::string& path) {
  const auto opened = Checkpoint::Open(path);
  REQUIRE_FALSE(opened.has_value());
  CHECK(Contains(opened.error().message, path));
  return opened.error();
}

// Writes a tiny llama after `change` and returns the error of opening it.
Error ErrorAfter(const std::function<void(TinyModel*)>& change) {
  TemporaryFolder folder;
  TinyModel tiny = TinyLlama();
  change(&tiny);
  tiny.Write(folder.path());
  return OpenError(folder.path());
}

Error ErrorWith(const char* key, Json value) {
  return ErrorAfter([&](TinyModel* tiny) { tiny->config.Set(key, std::move(value)); });
}

TEST_CASE("a folder's tensors have GGUF names, shapes and order") {
  TemporaryFolder folder;
  TinyLlama().Write(folder.path());
  const auto checkpoint = Checkpoint::Open(folder.path());
  REQUIRE(checkpoint.has_value());
  CHECK(checkpoint->kind() == CheckpointKind::kHfFolder);
  const auto tensors = checkpoint->tensors();
  REQUIRE(tensors.size() == 1 + 3 * 9 + 2);
  CHECK(tensors.front().name == "token_embd.weight");
  CHECK(tensors.front().shape == Shape{37, 48});
  CHECK(tensors[1].name == "blk.0.attn_norm.weight");
  CHECK(tensors.back().name == "output.weight");
  REQUIRE(checkpoint->Find("blk.2.ffn_down.weight").has_value());
  CHECK(tensors[*checkpoint->Find("blk.2.ffn_down.weight")].shape == Shape{48, 40});
  CHECK_FALSE(checkpoint->Find("blk.3.ffn_down.weight").has_value());
}

TEST_CASE("rows of q and k are put in pairs, others are borrowed") {
  TemporaryFolder folder;
  const TinyModel tiny = TinyLlama();
  tiny.Write(folder.path());
  const auto checkpoint = Checkpoint::Open(folder.path());
  REQUIRE(checkpoint.has_value());
  const auto q = checkpoint->Load(*checkpoint->Find("blk.1.attn_q.weight"));
  REQUIRE(q.has_value());
  CHECK(q->owned());
  const auto& source = tiny.tensors.at("model.layers.1.self_attn.q_proj.weight").values;
  const auto same_row = [&](uint64_t row, uint64_t from) {
    return std::memcmp(q->view().row(row), source.data() + from * 48, 48 * sizeof(float)) == 0;
  };
  // Heads of 12 rows: 0, 6, 1, 7, ...
  CHECK(same_row(0, 0));
  CHECK(same_row(1, 6));
  CHECK(same_row(2, 1));
  CHECK(same_row(11, 11));
  CHECK(same_row(12, 12));
  CHECK(same_row(13, 18));
  const auto v = checkpoint->Load(*checkpoint->Find("blk.1.attn_v.weight"));
  REQUIRE(v.has_value());
  CHECK_FALSE(v->owned());
  checkpoint->DropPages(*checkpoint->Find("blk.1.attn_v.weight"));
  CHECK(std::memcmp(v->view().data,
                    tiny.tensors.at("model.layers.1.self_attn.v_proj.weight").values.data(),
                    v->view().bytes) == 0);
}

TEST_CASE("a changed checkpoint can be changed again, and the first stays as it was") {
  TemporaryFolder folder;
  TinyLlama().Write(folder.path());
  const auto stored = Checkpoint::Open(folder.path());
  REQUIRE(stored.has_value());
  const size_t norm = *stored->Find("output_norm.weight");
  const auto first = [&](const Checkpoint& checkpoint) {
    const auto tensor = checkpoint.Load(norm);
    REQUIRE(tensor.has_value());
    float value = 0;
    tensor->view().Decode(0, 1, &value);
    return value;
  };
  const auto add = [](std::span<float> values) { values[0] += 1; };
  const auto twice = [](std::span<float> values) { values[0] *= 2; };
  const Checkpoint once = stored->Changed({{norm, add}});
  const Checkpoint again = once.Changed({{norm, twice}});
  CHECK(first(once) == first(*stored) + 1);
  CHECK(first(again) == 2 * (first(*stored) + 1));
  CHECK(again.tensors()[norm].dtype == DType::kF32);
}

TEST_CASE("gemma's norm weights come with 1 added, in F32") {
  TemporaryFolder folder;
  const TinySizes sizes;
  const TinyModel tiny = TinyWeights(TinyConfig("Gemma2ForCausalLM", "gemma2", sizes), sizes,
                                     {.gemma = true, .head = false}, 3);
  tiny.Write(folder.path());
  const auto checkpoint = Checkpoint::Open(folder.path());
  REQUIRE(checkpoint.has_value());
  for (const char* name : {"blk.1.post_ffw_norm.weight", "output_norm.weight"}) {
    const size_t index = *checkpoint->Find(name);
    CHECK(checkpoint->tensors()[index].dtype == DType::kF32);
    const auto norm = checkpoint->Load(index);
    REQUIRE(norm.has_value());
    const auto* values = reinterpret_cast<const float*>(norm->view().data);
    const std::string source =
        name[0] == 'o' ? "model.norm.weight" : "model.layers.1.post_feedforward_layernorm.weight";
    CHECK(values[7] == tiny.tensors.at(source).values[7] + 1.0f);
  }
}

TEST_CASE("metadata has the keys that llama.cpp reads") {
  TemporaryFolder folder;
  TinyModel tiny = TinyLlama();
  tiny.config.Set("rope_theta", 500000.0);
  tiny.Write(folder.path());
  const auto checkpoint = Checkpoint::Open(folder.path());
  REQUIRE(checkpoint.has_value());
  const Metadata& m = checkpoint->metadata();
  const auto uint_of = [&](const char* key) {
    const MetaValue* value = m.Find(key);
    REQUIRE_MESSAGE(value, key);
    REQUIRE(TypeOf(*value) == MetaType::kU32);
    return std::get<uint32_t>(*value);
  };
  CHECK(*m.GetString("general.architecture") == "llama");
  CHECK(*m.GetString("general.type") == "model");
  CHECK(folder.path().ends_with(*m.GetString("general.name")));
  CHECK(*m.GetString("general.size_label") == "42K");
  CHECK(uint_of("llama.block_count") == 3);
  CHECK(uint_of("llama.context_length") == 64);
  CHECK(uint_of("llama.embedding_length") == 48);
  CHECK(uint_of("llama.feed_forward_length") == 40);
  CHECK(uint_of("llama.attention.head_count") == 4);
  CHECK(uint_of("llama.attention.head_count_kv") == 2);
  CHECK(uint_of("llama.attention.key_length") == 12);
  CHECK(uint_of("llama.attention.value_length") == 12);
  CHECK(uint_of("llama.rope.dimension_count") == 12);
  CHECK(uint_of("llama.vocab_size") == 37);
  CHECK(std::get<float>(*m.Find("llama.rope.freq_base")) == 500000.0f);
  CHECK(std::get<float>(*m.Find("llama.attention.layer_norm_rms_epsilon")) == 1e-5f);
  CHECK(m.Find("llama.rope.scaling.type") == nullptr);
  CHECK(m.Find("general.file_type") == nullptr);
}

TEST_CASE("phi3 and gemma keys") {
  TemporaryFolder folder;
  const TinySizes sizes;
  Json config = TinyConfig("Phi3ForCausalLM", "phi3", sizes);
  const JsonArray factors(6, 2.0);
  config.Set("rope_scaling",
             JsonObject{{"type", "su"}, {"short_factor", factors}, {"long_factor", factors}});
  config.Set("original_max_position_embeddings", 16);
  TinyWeights(config, sizes, {.fused = true}, 4).Write(folder.path());
  const auto phi3 = Checkpoint::Open(folder.path());
  REQUIRE(phi3.has_value());
  CHECK(phi3->tensors()[0].name == "rope_factors_long.weight");
  CHECK(phi3->tensors()[1].name == "rope_factors_short.weight");
  CHECK(phi3->tensors()[0].shape == Shape{6});
  const Metadata& m = phi3->metadata();
  CHECK(*m.GetUint("phi3.rope.scaling.original_context_length") == 16);
  CHECK(*m.GetDouble("phi3.rope.scaling.attn_factor") == doctest::Approx(std::sqrt(1.5)));
  CHECK(*m.GetUint("phi3.attention.sliding_window") == 0);

  TemporaryFolder other;
  TinyWeights(TinyConfig("Gemma2ForCausalLM", "gemma2", sizes), sizes,
              {.gemma = true, .head = false}, 3)
      .Write(other.path());
  const auto gemma = Checkpoint::Open(other.path());
  REQUIRE(gemma.has_value());
  CHECK(*gemma->metadata().GetDouble("gemma2.attn_logit_softcapping") == 50.0);
  CHECK(*gemma->metadata().GetDouble("gemma2.final_logit_softcapping") == 30.0);
  CHECK(*gemma->metadata().GetUint("gemma2.attention.sliding_window") == 4096);
  CHECK(gemma->metadata().Find("gemma2.attention.sliding_window_pattern") == nullptr);
}

TEST_CASE("missing, misshapen and unknown tensors are named") {
  const std::string down = "model.layers.1.mlp.down_proj.weight";
  Error error = ErrorAfter([&](TinyModel* tiny) { tiny->tensors.erase(down); });
  CHECK(error.code == Code::kBadData);
  CHECK(Contains(error.message, down));
  CHECK(Contains(error.message, "missing"));

  error = ErrorAfter([&](TinyModel* tiny) { tiny->tensors[down].shape = {40, 48}; });
  CHECK(error.code == Code::kBadData);
  CHECK(Contains(error.message, down));
  CHECK(Contains(error.message, "[48, 40]"));

  error = ErrorAfter([&](TinyModel* tiny) {
    tiny->tensors["model.layers.0.block_sparse_moe.gate.weight"] = {{1}, {1.0f}};
  });
  CHECK(error.code == Code::kUnsupported);
  CHECK(Contains(error.message, "block_sparse_moe"));

  error = ErrorWith("vocab_size", 38);
  CHECK(error.code == Code::kBadData);
  CHECK(Contains(error.message, "embed_tokens"));

  error = ErrorWith("num_hidden_layers", 4000000000u);
  CHECK(error.code == Code::kBadData);
}

TEST_CASE("buffers and the head of a tied model are passed over") {
  TemporaryFolder folder;
  TinyModel tiny = TinyLlama();
  tiny.tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = {{6}, std::vector<float>(6)};
  tiny.config.Set("tie_word_embeddings", true);
  tiny.Write(folder.path());
  const auto checkpoint = Checkpoint::Open(folder.path());
  REQUIRE_MESSAGE(checkpoint.has_value(), (checkpoint ? "" : checkpoint.error().message));
  CHECK(checkpoint->spec().tied_embeddings);
  CHECK_FALSE(checkpoint->Find("output.weight").has_value());
}

TEST_CASE("variants that we lack are refused by name") {
  Error error = ErrorWith("architectures", JsonArray{"MixtralForCausalLM"});
  CHECK(error.code == Code::kUnsupported);
  CHECK(Contains(error.message, "MixtralForCausalLM"));
  CHECK(Contains(error.message, "gemma3"));

  error = ErrorWith("hidden_act", "relu");
  CHECK(error.code == Code::kUnsupported);
  CHECK(Contains(error.message, "relu"));

  error = ErrorWith("quantization_config", JsonObject{{"quant_method", "aqlm"}});
  CHECK(error.code == Code::kUnsupported);
  CHECK(Contains(error.message, "gptq, awq and bitsandbytes"));

  error = ErrorWith("rope_scaling", JsonObject{{"rope_type", "dynamic"}, {"factor", 2.0}});
  CHECK(error.code == Code::kUnsupported);
  CHECK(Contains(error.message, "dynamic"));

  error = ErrorWith("mlp_bias", true);
  CHECK(error.code == Code::kUnsupported);
}

TEST_CASE("impossible configurations are refused") {
  const auto refused = [](const char* key, Json value, const char* part) {
    CAPTURE(key);
    const Error error = ErrorWith(key, std::move(value));
    CHECK(error.code == Code::kBadData);
    CHECK_MESSAGE(Contains(error.message, part), error.message);
  };
  refused("num_attention_heads", 0, "heads");
  refused("num_attention_heads", "four", "num_attention_heads");
  refused("num_key_value_heads", 3, "share");
  refused("num_key_value_heads", 8, "heads");
  refused("hidden_size", -4, "hidden_size");
  refused("hidden_size", Json(), "hidden_size");
  refused("head_dim", 13, "odd");
  refused("rope_theta", 0.0, "base");
  refused("rope_theta", 1e300, "rope_theta");
  refused("rms_norm_eps", -1.0, "epsilon");
  refused("max_position_embeddings", 0, "context");
  refused("rope_scaling", JsonObject{{"rope_type", "linear"}, {"factor", 0.0}}, "factor");
  refused("rope_scaling", JsonObject{{"rope_type", "linear"}}, "factor");
}

// Writes a GGUF of the tiny llama, changed by `change`.
Error GgufError(const std::function<void(Metadata*, std::vector<GgufTensorDecl>*)>& change) {
  TemporaryFolder folder;
  TinyLlama().Write(folder.path());
  const auto checkpoint = Checkpoint::Open(folder.path());
  REQUIRE(checkpoint.has_value());
  Metadata metadata = checkpoint->metadata();
  std::vector<GgufTensorDecl> decls;
  for (const auto& tensor : checkpoint->tensors()) {
    decls.push_back({tensor.name, tensor.dtype, tensor.shape});
  }
  change(&metadata, &decls);
  const std::string path = folder / "changed.gguf";
  auto writer = GgufWriter::Create(path, false, metadata, decls);
  REQUIRE_MESSAGE(writer.has_value(), (writer ? "" : writer.error().message));
  for (const auto& decl : decls) {
    const std::vector<std::byte> zeros(*TensorBytes(decl.dtype, decl.shape));
    REQUIRE(writer->Write(zeros).has_value());
  }
  REQUIRE(writer->Finish().has_value());
  return OpenError(path);
}

TEST_CASE("a GGUF that does not add up is refused") {
  using Decls = std::vector<GgufTensorDecl>;
  Error error = GgufError([](Metadata*, Decls* decls) { decls->clear(); });
  CHECK(error.code == Code::kUnsupported);
  CHECK(Contains(error.message, "tokenizer only"));

  error = GgufError([](Metadata* m, Decls*) { m->Erase("general.architecture"); });
  CHECK(error.code == Code::kBadData);

  error =
      GgufError([](Metadata* m, Decls*) { m->Set("general.architecture", std::string("mamba")); });
  CHECK(error.code == Code::kUnsupported);
  CHECK(Contains(error.message, "mamba"));

  error = GgufError([](Metadata* m, Decls*) { m->Erase("llama.embedding_length"); });
  CHECK(error.code == Code::kBadData);
  CHECK(Contains(error.message, "llama.embedding_length"));

  error = GgufError([](Metadata*, Decls* decls) { decls->erase(decls->begin() + 1); });
  CHECK(error.code == Code::kBadData);
  CHECK(Contains(error.message, "blk.0.attn_norm.weight"));

  error = GgufError([](Metadata*, Decls* decls) { (*decls)[1].shape = Shape{49}; });
  CHECK(error.code == Code::kBadData);
  CHECK(Contains(error.message, "[49]"));

  error = GgufError([](Metadata*, Decls* decls) {
    decls->push_back({"blk.0.ffn_gate_inp.weight", DType::kF32, Shape{8, 48}});
  });
  CHECK(error.code == Code::kUnsupported);
  CHECK(Contains(error.message, "ffn_gate_inp"));

  error = GgufError([](Metadata* m, Decls*) { m->Set("llama.vocab_size", uint32_t{99}); });
  CHECK(error.code == Code::kBadData);
  CHECK(Contains(error.message, "99"));

  error = GgufError([](Metadata* m, Decls*) {
    m->Set("tokenizer.ggml.tokens", MetaArray(std::vector<std::string>{"a", "b"}));
  });
  CHECK(error.code == Code::kBadData);
  CHECK(Contains(error.message, "37"));

  error = GgufError([](Metadata* m, Decls*) { m->Set("llama.block_count", uint32_t{4000}); });
  CHECK(error.code == Code::kBadData);
}

TEST_CASE("paths that are no checkpoint are refused") {
  TemporaryFolder folder;
  CHECK(OpenError(folder / "absent").code == Code::kNotFound);
  std::ofstream(folder / "noise.bin") << "this is no model at all, but some text";
  CHECK(OpenError(folder / "noise.bin").code == Code::kBadData);
  TinyLlama().Write(folder.path());
  const Error error = OpenError(folder / "model.safetensors");
  CHECK(error.code == Code::kUnsupported);
  CHECK(Contains(error.message, "folder"));
}

TEST_CASE("a vocabulary-only GGUF says so") {
  EW_EXTERNAL_OR_SKIP(path, "tokenizers/ggml-vocab-llama-spm.gguf");
  const Error error = OpenError(path);
  CHECK(error.code == Code::kUnsupported);
  CHECK(Contains(error.message, "tokenizer"));
}

}  // namespace
}  // namespace edgewise
