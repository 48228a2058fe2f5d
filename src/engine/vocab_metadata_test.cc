#include "engine/vocab_metadata.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "base/strings.h"
#include "formats/gguf.h"
#include "tests/test_data.h"

namespace edgewise {
namespace {

void CheckSame(const Vocab& a, const Vocab& b) {
  CHECK(a.kind == b.kind);
  CHECK(a.pre == b.pre);
  CHECK(a.tokens == b.tokens);
  CHECK(a.scores == b.scores);
  CHECK(a.types == b.types);
  CHECK(a.merges == b.merges);
  CHECK(a.bos == b.bos);
  CHECK(a.eos == b.eos);
  CHECK(a.unk == b.unk);
  CHECK(a.pad == b.pad);
  CHECK(a.sep == b.sep);
  CHECK(a.cls == b.cls);
  CHECK(a.mask == b.mask);
  CHECK(a.eog == b.eog);
  CHECK(a.add_bos == b.add_bos);
  CHECK(a.add_eos == b.add_eos);
  CHECK(a.add_space_prefix == b.add_space_prefix);
  CHECK(a.remove_extra_whitespaces == b.remove_extra_whitespaces);
  CHECK(a.ignore_merges == b.ignore_merges);
  CHECK(a.precompiled_charsmap == b.precompiled_charsmap);
  CHECK(a.nfc == b.nfc);
  CHECK(a.lowercase == b.lowercase);
  CHECK(a.strip_accents == b.strip_accents);
  CHECK(a.lstrip == b.lstrip);
  CHECK(a.rstrip == b.rstrip);
  CHECK(a.chat_template == b.chat_template);
}

Vocab Small(TokenizerKind kind) {
  Vocab vocab;
  vocab.kind = kind;
  if (kind == TokenizerKind::kBpe) vocab.pre = "qwen2";
  vocab.tokens = {"<unk>", "<s>", "</s>", "a", "b", "ab", "<|im_end|>", "stop", "halt", "rest"};
  vocab.types = {TokenType::kUnknown,    TokenType::kControl, TokenType::kControl,
                 TokenType::kNormal,     TokenType::kNormal,  TokenType::kNormal,
                 TokenType::kControl,    TokenType::kControl, TokenType::kControl,
                 TokenType::kUserDefined};
  vocab.bos = 1;
  vocab.eos = 2;
  vocab.unk = 0;
  vocab.pad = 9;
  vocab.eog = {2, 6};
  vocab.add_bos = true;
  vocab.add_space_prefix = false;
  vocab.chat_template = "{{ messages }}";
  vocab.lstrip = {8};
  vocab.rstrip = {6, 7};
  if (kind == TokenizerKind::kSpm || kind == TokenizerKind::kUnigram) {
    vocab.scores = {0, 0, 0, -1, -2, -3, 0, 0, 0, -4.5f};
  }
  if (kind == TokenizerKind::kBpe)
    vocab.merges = {"a b"};  // and not NFC, which qwen2 has by default
  if (kind == TokenizerKind::kWordPiece) {
    vocab.sep = 2;
    vocab.cls = 1;
    vocab.mask = 8;
    vocab.lowercase = false;
    vocab.strip_accents = true;
    vocab.add_eos = true;
  }
  if (kind == TokenizerKind::kUnigram) {
    vocab.remove_extra_whitespaces = true;
    vocab.precompiled_charsmap = std::string("\x04\x00\xff\x80z", 5);
    vocab.mask = vocab.sep = vocab.cls = std::nullopt;
  }
  return vocab;
}

TEST_CASE("a vocabulary of each kind survives the way to metadata and back") {
  for (TokenizerKind kind : {TokenizerKind::kSpm, TokenizerKind::kBpe, TokenizerKind::kWordPiece,
                             TokenizerKind::kUnigram}) {
    CAPTURE(static_cast<int>(kind));
    const Vocab vocab = Small(kind);
    Metadata metadata;
    AddVocabToMetadata(vocab, &metadata);
    auto back = VocabFromMetadata(metadata);
    REQUIRE_MESSAGE(back, (back ? "" : back.error().message));
    if (kind == TokenizerKind::kWordPiece)
      back->tokens = vocab.tokens;  // compared on its own below
    CheckSame(vocab, *back);
  }
}

TEST_CASE("more ends of generation than llama.cpp has keys for") {
  Vocab vocab = Small(TokenizerKind::kSpm);
  vocab.tokens.push_back("over");
  vocab.types.push_back(TokenType::kControl);
  vocab.scores.push_back(0);
  vocab.eog = {2, 6, 7, 8, 10};
  Metadata metadata;
  AddVocabToMetadata(vocab, &metadata);
  CHECK(metadata.GetUint("tokenizer.ggml.eot_token_id").value_or(0) == 7);
  CHECK(metadata.GetUint("tokenizer.ggml.eom_token_id").value_or(0) == 8);
  auto back = VocabFromMetadata(metadata);
  REQUIRE(back);
  CHECK(back->eog == vocab.eog);
}

TEST_CASE("the keys are those of llama.cpp's converter") {
  Metadata metadata;
  AddVocabToMetadata(Small(TokenizerKind::kSpm), &metadata);
  CHECK(metadata.GetString("tokenizer.ggml.model").value_or("") == "llama");
  CHECK(metadata.GetString("tokenizer.ggml.pre").value_or("") == "default");
  CHECK(metadata.FindStrings("tokenizer.ggml.tokens")->size() == 10);
  CHECK(metadata.FindFloats("tokenizer.ggml.scores")->size() == 10);
  const auto* types = std::get_if<MetaArray>(metadata.Find("tokenizer.ggml.token_type"));
  REQUIRE(types != nullptr);
  CHECK(types->element == MetaType::kI32);
  for (const char* key : {"bos", "eos", "unknown", "padding"}) {
    const MetaValue* value = metadata.Find(Format("tokenizer.ggml.%s_token_id", key));
    REQUIRE(value != nullptr);
    CHECK(TypeOf(*value) == MetaType::kU32);
  }
  CHECK(metadata.GetBool("tokenizer.ggml.add_bos_token").value_or(false));
  CHECK(metadata.GetString("tokenizer.chat_template").value_or("") == "{{ messages }}");
  CHECK(metadata.Find("tokenizer.ggml.merges") == nullptr);

  Metadata bpe;
  AddVocabToMetadata(Small(TokenizerKind::kBpe), &bpe);
  CHECK(bpe.GetString("tokenizer.ggml.model").value_or("") == "gpt2");
  CHECK(*bpe.FindStrings("tokenizer.ggml.merges") == std::vector<std::string>{"a b"});
  CHECK(bpe.Find("tokenizer.ggml.scores") == nullptr);
}

TEST_CASE("WordPiece tokens are written with GGUF's mark of a word's beginning") {
  Vocab vocab = Small(TokenizerKind::kWordPiece);
  vocab.tokens = {"[UNK]", "[CLS]", "[SEP]", "play",   "##ing",
                  "##ed",  "[X]",   "[PAD]", "[MASK]", "!"};
  vocab.types.assign(10, TokenType::kNormal);
  for (size_t special : {0, 1, 2, 6, 7, 8}) vocab.types[special] = TokenType::kControl;
  Metadata metadata;
  AddVocabToMetadata(vocab, &metadata);
  const std::vector<std::string> expected = {"[UNK]", "[CLS]", "[SEP]", "\u2581play", "ing",
                                             "ed",    "[X]",   "[PAD]", "[MASK]",     "\u2581!"};
  CHECK(*metadata.FindStrings("tokenizer.ggml.tokens") == expected);
  auto back = VocabFromMetadata(metadata);
  REQUIRE(back);
  Metadata again;
  AddVocabToMetadata(*back, &again);
  CHECK(*again.FindStrings("tokenizer.ggml.tokens") == expected);
}

TEST_CASE("what llama.cpp assumes where a file does not say") {
  Metadata metadata;
  AddVocabToMetadata(Small(TokenizerKind::kSpm), &metadata);
  for (const char* key : {"add_bos_token", "add_eos_token", "add_space_prefix", "bos_token_id",
                          "eos_token_id", "unknown_token_id", "padding_token_id"}) {
    metadata.Erase(std::string("tokenizer.ggml.") + key);
  }
  auto spm = VocabFromMetadata(metadata);
  REQUIRE(spm);
  CHECK(spm->add_bos);
  CHECK_FALSE(spm->add_eos);
  CHECK(spm->add_space_prefix);
  CHECK(spm->bos == 1);
  CHECK(spm->eos == 2);
  CHECK(spm->unk == 0);
  CHECK_FALSE(spm->pad.has_value());

  Metadata bpe;
  AddVocabToMetadata(Small(TokenizerKind::kBpe), &bpe);
  bpe.Erase("tokenizer.ggml.add_bos_token");
  bpe.Set("tokenizer.ggml.pre", std::string("llama-bpe"));
  auto llama3 = VocabFromMetadata(bpe);
  REQUIRE(llama3);
  CHECK(llama3->add_bos);
  CHECK(llama3->ignore_merges);
  bpe.Set("tokenizer.ggml.pre", std::string("qwen2"));
  auto qwen2 = VocabFromMetadata(bpe);
  REQUIRE(qwen2);
  CHECK_FALSE(qwen2->add_bos);
  CHECK_FALSE(qwen2->ignore_merges);
}

TEST_CASE("well-known ends are found by their text and become control tokens") {
  Vocab vocab = Small(TokenizerKind::kSpm);
  vocab.tokens[9] = "<end_of_turn>";
  vocab.eog.clear();
  AddKnownEndTokens(&vocab);
  CHECK(vocab.eog == std::vector<int32_t>{2, 6, 9});
  CHECK(vocab.types[9] == TokenType::kControl);

  vocab.tokens[7] = "<|end|>";
  vocab.tokens[8] = "<|return|>";
  vocab.tokens[3] = "<|call|>";
  vocab.types[3] = TokenType::kControl;
  vocab.eog.clear();
  AddKnownEndTokens(&vocab);
  CHECK(vocab.eog == std::vector<int32_t>{2, 3, 6, 8, 9});  // a message's end is not the answer's
}

TEST_CASE("broken vocabularies are errors") {
  const auto broken = [](auto change) {
    Metadata metadata;
    AddVocabToMetadata(Small(TokenizerKind::kBpe), &metadata);
    change(&metadata);
    auto vocab = VocabFromMetadata(metadata);
    REQUIRE_FALSE(vocab);
    return vocab.error();
  };
  CHECK(broken([](Metadata* m) { m->Erase("tokenizer.ggml.model"); }).code == Code::kNotFound);
  CHECK(broken([](Metadata* m) { m->Set("tokenizer.ggml.model", std::string("rwkv")); }).code ==
        Code::kUnsupported);
  CHECK(broken([](Metadata* m) { m->Erase("tokenizer.ggml.tokens"); }).code == Code::kBadData);
  CHECK(broken([](Metadata* m) { m->Erase("tokenizer.ggml.merges"); }).message.find("merges") !=
        std::string::npos);
  CHECK(broken([](Metadata* m) { m->Set("tokenizer.ggml.eos_token_id", uint32_t{10}); }).code ==
        Code::kBadData);
  CHECK(broken([](Metadata* m) {
          m->Set("tokenizer.ggml.token_type", MetaArray(std::vector<int32_t>{1, 1}));
        }).code == Code::kBadData);
  CHECK(broken([](Metadata* m) {
          m->Set("tokenizer.ggml.token_type", MetaArray(std::vector<int32_t>(10, 7)));
        }).code == Code::kBadData);

  Metadata metadata;
  AddVocabToMetadata(Small(TokenizerKind::kSpm), &metadata);
  metadata.Erase("tokenizer.ggml.scores");
  CHECK(VocabFromMetadata(metadata).error().code == Code::kBadData);
  AddVocabToMetadata(Small(TokenizerKind::kSpm), &metadata);
  metadata.Set("tokenizer.ggml.padding_token_id", uint32_t{4000000000u});
  auto without_pad = VocabFromMetadata(metadata);
  REQUIRE(without_pad);
  CHECK_FALSE(without_pad->pad.has_value());
}

TEST_CASE("our own model's folder") {
  auto checkpoint = Checkpoint::Open(SourcePath("models/edgewise-stories-3M"));
  REQUIRE_MESSAGE(checkpoint, (checkpoint ? "" : checkpoint.error().message));
  auto vocab = LoadVocab(*checkpoint);
  REQUIRE_MESSAGE(vocab, (vocab ? "" : vocab.error().message));
  CHECK(vocab->kind == TokenizerKind::kSpm);
  CHECK(vocab->tokens.size() == 2048);
  CHECK(vocab->bos == 1);
  CHECK(vocab->eos == 2);
  CHECK(vocab->add_bos);
  CHECK_FALSE(vocab->add_eos);
  CHECK(vocab->eog == std::vector<int32_t>{2});
  CHECK(vocab->types[1] == TokenType::kControl);
  auto same = LoadVocab(*checkpoint, SourcePath("models/edgewise-stories-3M"));
  REQUIRE(same);
  CheckSame(*vocab, *same);
  Metadata metadata;
  AddVocabToMetadata(*vocab, &metadata);
  auto back = VocabFromMetadata(metadata);
  REQUIRE(back);
  CheckSame(*vocab, *back);
  auto tokenizer = Tokenizer::Create(*back);
  REQUIRE_MESSAGE(tokenizer, (tokenizer ? "" : tokenizer.error().message));
  auto ids = (*tokenizer)->Encode("Once upon a time");
  REQUIRE(ids);
  CHECK(ids->front() == 1);
  CHECK((*tokenizer)->Decode(*ids).value_or("") == "Once upon a time");
  CHECK(LoadVocab(*checkpoint, "/nonexistent/tokenizer.model").error().code == Code::kNotFound);
}

void WriteAll(const std::string& path, const std::string& text) {
  std::ofstream(path, std::ios::binary) << text;
}

TEST_CASE("files beside a SentencePiece model add to it") {
  TemporaryFolder folder;
  for (const char* name : {"config.json", "model.safetensors", "tokenizer.model"}) {
    std::filesystem::create_symlink(SourcePath(std::string("models/edgewise-stories-3M/") + name),
                                    folder / name);
  }
  auto checkpoint = Checkpoint::Open(folder.path());
  REQUIRE(checkpoint);
  auto plain = LoadVocab(*checkpoint);
  REQUIRE(plain);
  CHECK(plain->add_bos);  // as Hugging Face and llama.cpp assume
  WriteAll(folder / "added_tokens.json", R"({"<extra>": 2046, "<pad>": 2048})");
  WriteAll(
      folder / "tokenizer_config.json",
      R"({"added_tokens_decoder": {"2047": {"content": "<|im_end|>", "special": true, "rstrip": true},
                                        "2048": {"content": "<pad>", "special": true}},
               "eos_token": "<|im_end|>", "pad_token": "<pad>", "chat_template": "{{ x }}"})");
  WriteAll(folder / "generation_config.json", R"({"eos_token_id": [2047, 2, 5]})");
  auto vocab = LoadVocab(*checkpoint);
  REQUIRE_MESSAGE(vocab, (vocab ? "" : vocab.error().message));
  CHECK(vocab->tokens.size() == 2048);  // <pad> has no row in the embedding
  CHECK(vocab->tokens[2046] == "<extra>");
  CHECK(vocab->types[2046] == TokenType::kUserDefined);
  CHECK(vocab->tokens[2047] == "<|im_end|>");
  CHECK(vocab->types[2047] == TokenType::kControl);
  CHECK(vocab->rstrip == std::vector<int32_t>{2047});
  CHECK(vocab->eos == 2047);
  CHECK_FALSE(vocab->pad.has_value());
  CHECK(vocab->eog == std::vector<int32_t>{2, 5, 2047});
  CHECK(vocab->chat_template == "{{ x }}");
  WriteAll(folder / "generation_config.json", R"({"eos_token_id": 2048})");
  CHECK(LoadVocab(*checkpoint).error().code == Code::kBadData);
  std::filesystem::remove(folder / "tokenizer.model");
  CHECK(LoadVocab(*checkpoint).error().code == Code::kNotFound);
}

// Each input of the .inp file must give the ids on the same line of the .out file.
void CheckVocabFile(const std::string& name) {
  EW_EXTERNAL_OR_SKIP(path, "tokenizers/ggml-vocab-" + name + ".gguf");
  auto file = GgufFile::Open(path);
  REQUIRE(file);
  auto vocab = VocabFromMetadata(file->metadata());
  REQUIRE_MESSAGE(vocab, (vocab ? "" : vocab.error().message));
  auto tokenizer = Tokenizer::Create(*vocab);
  REQUIRE_MESSAGE(tokenizer, (tokenizer ? "" : tokenizer.error().message));
  const std::string input = ReadWhole(path + ".inp"), output = ReadWhole(path + ".out");
  const auto texts = Split(input, "\n__ggml_vocab_test__\n");
  const auto lines = Split(output, "\n");
  REQUIRE(texts.size() > 40);
  for (size_t i = 0; i < texts.size(); ++i) {
    auto ids = (*tokenizer)->Encode(texts[i], {.add_special = false});
    REQUIRE(ids);
    std::string line;
    for (int32_t id : *ids) line += Format(" %d", id);
    CAPTURE(texts[i]);
    CHECK(Trim(line) == Trim(lines[i]));
  }
}

TEST_CASE("llama SPM vocabulary file") { CheckVocabFile("llama-spm"); }
TEST_CASE("phi-3 SPM vocabulary file") { CheckVocabFile("phi-3"); }
TEST_CASE("GPT-2 vocabulary file") { CheckVocabFile("gpt-2"); }
TEST_CASE("deepseek-coder vocabulary file") { CheckVocabFile("deepseek-coder"); }
TEST_CASE("BERT vocabulary file") { CheckVocabFile("bert-bge"); }

}  // namespace
}  // namespace edgewise
