#include "engine/session.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <limits>

#include "base/file.h"
#include "base/strings.h"
#include "engine/test_engine.h"
#include "tests/test_data.h"

namespace edgewise {
namespace {

Session MakeSession(Engine* engine, uint32_t context = 0) {
  SessionOptions options;
  options.context = context;
  auto session = Session::Create(engine, options);
  REQUIRE(session);
  return *std::move(session);
}

std::vector<int32_t> Encode(const Engine& engine, std::string_view text) {
  auto ids = engine.tokenizer().Encode(text);
  REQUIRE(ids);
  return *std::move(ids);
}

GenerateOptions Greedy(uint32_t max_tokens) {
  GenerateOptions options;
  options.sampler.temperature = 0;
  options.max_tokens = max_tokens;
  return options;
}

Generation Run(Session* session, const GenerateOptions& options) {
  std::string streamed;
  auto generation = session->Generate(options, [&](std::string_view part) {
    CHECK(IsUtf8(part));
    streamed += part;
    return true;
  });
  REQUIRE_MESSAGE(generation.has_value(), (generation ? "" : generation.error().message));
  CHECK(generation->text == streamed);
  return *std::move(generation);
}

Generation FromPrompt(Engine* engine, std::string_view prompt, const GenerateOptions& options) {
  Session session = MakeSession(engine);
  REQUIRE(session.Append(Encode(*engine, prompt)));
  return Run(&session, options);
}

TEST_CASE("stories260K writes its published text") {
  EW_EXTERNAL_OR_SKIP(model, "models/stories260K/stories260K.bin");
  EW_EXTERNAL_OR_SKIP(page, "models/stories260K/stories260K.md");
  const auto markdown = ReadFile(page, 1 << 20);
  REQUIRE(markdown);
  const std::string open = "-t 0.0\n";
  const size_t begin = markdown->find(open) + open.size();
  const std::string expected = markdown->substr(begin, markdown->find("\n```", begin) - begin);
  REQUIRE(expected.size() > 500);
  for (const int threads : {1, 2, 3}) {
    const auto engine = LoadTestEngine(model, threads);
    const Generation generation = FromPrompt(engine.get(), "", Greedy(256));
    CHECK(generation.text == expected);
    CHECK(generation.ids.size() == 256);
    CHECK(generation.reason == StopReason::kMaxTokens);
  }
}

TEST_CASE("Greedy ids equal those of an independent forward pass") {
  EW_EXTERNAL_OR_SKIP(golden, "golden/edgewise_stories_3M_logits.json");
  const auto text = ReadFile(golden, 64 << 20);
  REQUIRE(text);
  const auto json = ParseJson(*text);
  REQUIRE(json);
  const Json* greedy = json->Find("greedy");
  REQUIRE(greedy);
  const auto ids = [&](const char* key) {
    std::vector<int32_t> result;
    for (const Json& id : *greedy->Find(key)->AsArray()) {
      result.push_back(static_cast<int32_t>(*id.AsInt()));
    }
    return result;
  };
  const std::vector<int32_t> expected = ids("continuation_ids");
  Session session = MakeSession(BundledEngine());
  REQUIRE(session.Append(ids("prompt_ids")));
  CHECK(Run(&session, Greedy(static_cast<uint32_t>(expected.size()))).ids == expected);
}

TEST_CASE("The same seed gives the same text for any number of threads") {
  GenerateOptions options;
  options.max_tokens = 60;
  options.sampler.seed = 7;
  options.sampler.temperature = 1;
  const Generation reference = FromPrompt(BundledEngine(), "Once upon a time", options);
  CHECK(reference.ids.size() == 60);
  for (const int threads : {2, 3}) {
    const auto engine = LoadTestEngine(BundledModel(), threads);
    CHECK(FromPrompt(engine.get(), "Once upon a time", options).ids == reference.ids);
  }
  options.sampler.seed = 8;
  CHECK(FromPrompt(BundledEngine(), "Once upon a time", options).ids != reference.ids);
}

TEST_CASE("Generating in steps, or after further prompts, equals generating anew") {
  const std::vector<int32_t> prompt = Encode(*BundledEngine(), "Once upon a time");
  const Generation whole = FromPrompt(BundledEngine(), "Once upon a time", Greedy(24));
  Session session = MakeSession(BundledEngine());
  REQUIRE(session.Append(prompt));
  std::vector<int32_t> ids;
  for (const uint32_t step : {1u, 7u, 0u, 16u}) {
    const Generation part = Run(&session, Greedy(step));
    ids.insert(ids.end(), part.ids.begin(), part.ids.end());
  }
  CHECK(ids == whole.ids);

  std::vector<int32_t> timeline = prompt;
  timeline.insert(timeline.end(), whole.ids.begin(), whole.ids.end());
  CHECK(std::equal(timeline.begin(), timeline.end(), session.tokens().begin(),
                   session.tokens().end()));
  const std::vector<int32_t> more = {300, 301, 302};
  timeline.insert(timeline.end(), more.begin(), more.end());
  REQUIRE(session.Append(more));
  Session fresh = MakeSession(BundledEngine());
  REQUIRE(fresh.Append(timeline));
  CHECK(Run(&session, Greedy(20)).ids == Run(&fresh, Greedy(20)).ids);
}

TEST_CASE("Replace keeps what is shared and changes nothing else") {
  Session session = MakeSession(BundledEngine());
  REQUIRE(session.Append(Encode(*BundledEngine(), "Once upon a time there was a dog")));
  Run(&session, Greedy(10));
  const std::vector<int32_t> other =
      Encode(*BundledEngine(), "Once upon a time there was a cat named Tom");
  const auto shared =
      std::mismatch(other.begin(), other.end(), session.tokens().begin(), session.tokens().end());
  const auto kept = session.Replace(other);
  REQUIRE(kept);
  CHECK(*kept == static_cast<size_t>(shared.first - other.begin()));
  CHECK(*kept >= 5);
  CHECK(Run(&session, Greedy(20)).ids ==
        FromPrompt(BundledEngine(), "Once upon a time there was a cat named Tom", Greedy(20)).ids);
  // A timeline that is wholly cached still gives the right next token.
  const std::vector<int32_t> prefix(session.tokens().begin(), session.tokens().begin() + 6);
  CHECK(*session.Replace(prefix) == 6);
  Session fresh = MakeSession(BundledEngine());
  REQUIRE(fresh.Append(prefix));
  CHECK(Run(&session, Greedy(5)).ids == Run(&fresh, Greedy(5)).ids);
  const std::vector<int32_t> bad = {1, 99999};
  CHECK(session.Replace(bad).error().code == Code::kInvalidArgument);
  CHECK(session.tokens().size() == 11);
}

TEST_CASE("A stop string ends the text before it, wherever it begins") {
  const Generation whole = FromPrompt(BundledEngine(), "Once upon a time", Greedy(40));
  const std::string& text = whole.text;
  for (size_t begin = 0; begin + 6 < text.size(); begin += 5) {
    const std::string stop = text.substr(begin, 6);
    GenerateOptions options = Greedy(40);
    options.stop = {"never there", stop};
    const Generation stopped = FromPrompt(BundledEngine(), "Once upon a time", options);
    CHECK(stopped.text == text.substr(0, text.find(stop)));
    CHECK(stopped.reason == StopReason::kStopString);
  }
}

TEST_CASE("Generation ends where the context does, and a prompt that does not fit is refused") {
  const std::vector<int32_t> prompt = Encode(*BundledEngine(), "Once upon a time");
  Session session = MakeSession(BundledEngine(), 16);
  REQUIRE(session.Append(prompt));
  const Generation generation = Run(&session, Greedy(100));
  CHECK(generation.reason == StopReason::kContextFull);
  CHECK(generation.ids.size() == 16 - prompt.size());
  CHECK(session.tokens().size() == 16);
  CHECK(Run(&session, Greedy(1)).reason == StopReason::kContextFull);
  const auto refused = session.Append(prompt);
  CHECK(refused.error().code == Code::kInvalidArgument);
  CHECK(refused.error().message.find("16") != std::string::npos);
  session.Clear();
  CHECK(session.tokens().empty());
  REQUIRE(session.Append(prompt));
  CHECK(Run(&session, Greedy(3)).ids ==
        std::vector<int32_t>(generation.ids.begin(), generation.ids.begin() + 3));
}

TEST_CASE("The reader and the flag cancel, and the session can go on") {
  const Generation whole = FromPrompt(BundledEngine(), "Once upon a time", Greedy(20));
  Session session = MakeSession(BundledEngine());
  REQUIRE(session.Append(Encode(*BundledEngine(), "Once upon a time")));
  int parts = 0;
  const auto cancelled =
      session.Generate(Greedy(20), [&](std::string_view) { return ++parts < 5; });
  REQUIRE(cancelled);
  CHECK(cancelled->reason == StopReason::kCancelled);
  CHECK(cancelled->ids.size() < 20);
  CHECK(whole.text.starts_with(cancelled->text));
  std::atomic<bool> flag = true;
  GenerateOptions options = Greedy(20);
  options.cancel = &flag;
  CHECK(Run(&session, options).reason == StopReason::kCancelled);
  flag = false;
  options.max_tokens = static_cast<uint32_t>(20 - cancelled->ids.size());
  std::vector<int32_t> ids = cancelled->ids;
  const Generation rest = Run(&session, options);
  ids.insert(ids.end(), rest.ids.begin(), rest.ids.end());
  CHECK(ids == whole.ids);
}

TEST_CASE("An end-of-generation token ends the text unless it is banned") {
  const int32_t eos = *BundledEngine()->tokenizer().vocab().eos;
  GenerateOptions options = Greedy(10);
  options.sampler.logit_bias = {{eos, 1e6f}};
  Session session = MakeSession(BundledEngine());
  REQUIRE(session.Append(Encode(*BundledEngine(), "Once")));
  const size_t before = session.tokens().size();
  const Generation ended = Run(&session, options);
  CHECK(ended.reason == StopReason::kEndOfText);
  CHECK(ended.ids.empty());
  CHECK(ended.text.empty());
  CHECK(session.tokens().size() == before);
  options.ignore_eos = true;
  const Generation banned = Run(&session, options);
  CHECK(banned.reason == StopReason::kMaxTokens);
  CHECK(banned.ids == FromPrompt(BundledEngine(), "Once", Greedy(10)).ids);
}

TEST_CASE("Wrong requests are refused with a reason") {
  Session session = MakeSession(BundledEngine());
  CHECK(session.Generate(Greedy(1)).error().code == Code::kInvalidArgument);
  const std::vector<int32_t> bad = {-1};
  CHECK(session.Append(bad).error().code == Code::kInvalidArgument);
  REQUIRE(session.Append(Encode(*BundledEngine(), "a")));
  GenerateOptions options = Greedy(1);
  options.stop = {""};
  CHECK(session.Generate(options).error().code == Code::kInvalidArgument);
  options = Greedy(1);
  options.sampler.top_p = 2;
  CHECK(session.Generate(options).error().code == Code::kInvalidArgument);
  SessionOptions large;
  large.context = BundledEngine()->model().spec().context_length + 1;
  CHECK(Session::Create(BundledEngine(), large).error().code == Code::kInvalidArgument);
  EngineOptions threads;
  threads.threads = -1;
  CHECK(Engine::Load(BundledModel(), threads).error().code == Code::kInvalidArgument);
  CHECK(Engine::Load(BundledModel() + "/absent").error().code == Code::kNotFound);
}

// The bundled model with another chat template.
std::unique_ptr<Engine> WithTemplate(const TemporaryFolder& folder,
                                     const std::string& chat_template) {
  for (const char* name : {"config.json", "model.safetensors", "tokenizer.model"}) {
    std::filesystem::create_symlink(std::filesystem::absolute(BundledModel() + "/" + name),
                                    folder / name);
  }
  Json config;
  config.Set("add_bos_token", true).Set("bos_token", "<s>").Set("eos_token", "</s>");
  config.Set("chat_template", chat_template);
  std::ofstream(folder / "tokenizer_config.json") << config.Dump();
  return LoadTestEngine(folder.path());
}

TEST_CASE("A conversation goes through the model's template") {
  const TemporaryFolder folder;
  const auto engine = WithTemplate(folder,
                                   "{{ bos_token }}{% for m in messages %}{{ m.role }}: {{ "
                                   "m.content }}{{ eos_token }}{% endfor %}"
                                   "{% if add_generation_prompt %}story:{% endif %}");
  REQUIRE(engine->chat_template());
  Json messages{JsonArray()};
  messages.Append(Json().Set("role", "user").Set("content", "a </s> dog"));
  const auto ids = engine->EncodeChat(messages);
  REQUIRE(ids);
  const Vocab& vocab = engine->tokenizer().vocab();
  CHECK(std::count(ids->begin(), ids->end(), *vocab.bos) == 1);
  CHECK(ids->front() == *vocab.bos);
  CHECK(std::count(ids->begin(), ids->end(), *vocab.eos) == 1);  // the template's, not the user's
  CHECK(engine->EncodeChat(messages, false)->size() < ids->size());
}

TEST_CASE("Without a usable template chat is refused with the reason") {
  CHECK(BundledEngine()->chat_template() == nullptr);
  CHECK(BundledEngine()->EncodeChat(Json(JsonArray())).error().code == Code::kUnsupported);
  const TemporaryFolder folder;
  const auto engine = WithTemplate(folder, "{% for m in %}");
  CHECK(engine->chat_template() == nullptr);
  CHECK(!engine->chat_template_error().empty());
  const auto refused = engine->EncodeChat(Json(JsonArray()));
  CHECK(refused.error().message == engine->chat_template_error());
}

}  // namespace
}  // namespace edgewise
