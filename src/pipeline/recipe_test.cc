#include "pipeline/recipe.h"

#include <doctest/doctest.h>

#include <string>

#include "base/yaml.h"
#include "pipeline/pass.h"
#include "pipeline/quality_card.h"

namespace edgewise {
namespace {

constexpr const char* kWhole =
    "model: ../models/m\n"
    "output: /tmp/o.gguf\n"
    "calibration: {text: a/cal.txt, tokens: 1000, context: 64}\n"
    "evaluation: {text: held.txt, convention: A, windows: 3}\n"
    "passes:\n"
    "  - rotate\n"
    "  - calibrate: {hessians: true}\n"
    "  - quantize:\n"
    "      to: q4_k_m\n"
    "      method: gptq\n"
    "      tensor_types: [\"ffn_down=q6_k\"]\n"
    "  - pack\n"
    "  - eval\n";

std::string ErrorOf(const std::string& text) {
  const auto recipe = ParseRecipe(text, "r.yaml");
  return recipe ? "" : recipe.error().message;
}

// The message for the shortest recipe with `passes`.
std::string PassesError(const std::string& passes, const std::string& sections = "") {
  return ErrorOf("model: m\noutput: o\n" + sections + "passes: " + passes + "\n");
}

TEST_CASE("a recipe is read with paths from its folder") {
  const auto recipe = ParseRecipe(kWhole, "x/y/r.yaml");
  REQUIRE_MESSAGE(recipe, (recipe ? "" : recipe.error().message));
  CHECK(recipe->model == "x/y/../models/m");
  CHECK(recipe->output == "/tmp/o.gguf");
  CHECK(recipe->calibration.path == "x/y/a/cal.txt");
  CHECK(recipe->calibration.max_tokens == 1000);
  CHECK(recipe->calibration.context == 64);
  CHECK(recipe->evaluation.path == "x/y/held.txt");
  CHECK(recipe->evaluation.convention == TextConvention::kWhole);
  CHECK(recipe->evaluation.windows.max_windows == 3);
  REQUIRE(recipe->passes.size() == 5);
  CHECK(recipe->passes[2].pass == FindPass("quantize"));
  CHECK(*recipe->passes[2].arguments.Find("to")->AsString() == "q4_k_m");
}

TEST_CASE("what decides the output holds no folders, and reads back as the same recipe") {
  const auto recipe = ParseRecipe(kWhole, "x/y/r.yaml");
  REQUIRE(recipe);
  const std::string text = recipe->json.Dump();
  CHECK(text.find('/') == text.npos);
  CHECK(text.find("o.gguf") == text.npos);
  const auto again = RecipeFromJson(recipe->json, "z", "f");
  REQUIRE_MESSAGE(again, (again ? "" : again.error().message));
  CHECK(again->json.Dump() == text);
  CHECK(again->model == "z/m");
  CHECK(again->calibration.path == "z/cal.txt");
}

TEST_CASE("keys: unknown, missing, of another type, out of range") {
  const struct {
    std::string text, message;
  } rows[] = {
      {"", "a recipe is a map"},
      {"- a\n", "a recipe is a map"},
      {"model: m\nouput: o\n",
       "r.yaml: line 2, column 1: unknown key \"ouput\" in the recipe; "
       "known are model, output, tokenizer, calibration"},
      {"model: m\npasses: []\n", "the recipe lacks the key output"},
      {"model: 3\n", "line 1, column 1: model must be a path"},
      {"model: ''\n", "model must be a path"},
      {"model: m\noutput: o\npasses: {}\n", "passes must be a list"},
      {"model: m\noutput: o\ncalibration: 7\npasses: []\n", "calibration must be a map"},
      {"model: m\noutput: o\ncalibration: {}\npasses: []\n", "calibration lacks the key text"},
      {"model: m\noutput: o\ncalibration:\n  text: t\n  tokens: -1\npasses: []\n",
       "line 5, column 3: tokens must be a whole number"},
      {"model: m\noutput: o\ncalibration:\n  text: t\n  context: 1\npasses: []\n",
       "context must be from 2 to 1048576"},
      {"model: m\noutput: o\nevaluation: {text: t, convention: B}\npasses: []\n", "convention"},
      {"a: 1\na: 2\n", "appears twice"},
  };
  for (const auto& row : rows) {
    CAPTURE(row.text);
    CHECK(ErrorOf(row.text).find(row.message) != std::string::npos);
  }
}

TEST_CASE("passes: unknown, repeated, without what they need, in an order that cannot be") {
  const std::string calibration = "calibration: {text: t}\n",
                    evaluation = "evaluation: {text: t}\n";
  const struct {
    std::string passes, sections, message;
  } rows[] = {
      {"[]", "", "no pass writes a file"},
      {"[rotate]", "", "no pass writes a file"},
      {"[distil]", "", "line 3, column 10: no pass is named \"distil\"; known are rotate"},
      {"[{prune: {sparsity: 50%}}]", "", "prune lacks the key method"},
      {"[{prune: {method: magic, sparsity: 50%}}]", "", "no such method"},
      {"[{prune: {method: magnitude, sparsity: 150%}}]", "", "150%"},
      {"[{prune: {method: magnitude, sparsity: 50%}}]", "", "no pass writes a file"},
      {"[{prune: {method: wanda, sparsity: 50%}}, {quantize: {to: q8_0}}]", "",
       "needs a calibration text"},
      {"[calibrate, {prune: {method: wanda, sparsity: 50%}}, {quantize: {to: q8_0}}]", calibration,
       "put prune before calibrate"},
      {"[{prune: {method: magnitude, sparsity: 50%}}, {quantize: {to: q4_k_m}}]", "",
       "q4_k_m with method rtn does not keep the zeros"},
      {"[{prune: {method: magnitude, sparsity: 50%}}, {quantize: {to: q8_0, method: gptq}}]",
       calibration, "q8_0 with method gptq does not keep the zeros"},
      {"[{prune: {method: flap}}]", calibration,
       "give sparsity, mask, or any of ffn, heads, width"},
      {"[{prune: {method: flap, ffn: 25%, sparsity: '2:4'}}]", calibration, "use two passes"},
      {"[{prune: {method: wanda, ffn: 25%}}]", calibration, "no such method of removing structure"},
      {"[{prune: {method: flap, sparsity: 50%}}]", calibration, "no such method"},
      {"[{prune: {method: flap, ffn: 125%}}]", calibration, "ffn: \"125%\" is no amount"},
      {"[{prune: {method: flap, layers: 0}}]", calibration, "layers: \"0\" is no amount"},
      {"[{prune: {method: flap, ffn: [1]}}]", calibration, "ffn must be a share or a whole number"},
      {"[{prune: {method: flap, ffn: 25%}}]", "", "needs a calibration text"},
      {"[{prune: {method: wanda, sparsity: 50%, repair: true}}]", calibration,
       "repair has no use with sparsity"},
      {"[{prune: {method: magnitude, sparsity: 50%}}, {prune: {method: flap, ffn: 25%}}]",
       calibration, "remove structure first"},
      {"[{prune: {method: magnitude, sparsity: 50%}}, {prune: {method: magnitude, sparsity: 70%}}]",
       "", "pruned already"},
      {"[{prune: {method: magnitude, sparsity: 50%}}, rotate, {quantize: {to: q8_0}}]", "",
       "put rotate before prune"},
      {"[{prune: {method: magnitude, sparsity: 50%}}, {quantize: {to: q8_0, tensor_types: "
       "['ffn_down=q4_k']}}]",
       "", "q4_k with method rtn does not keep the zeros"},
      {"[{prune: {method: flap, ffn: 25%, owl: true}}, {quantize: {to: q8_0}}]", calibration,
       "owl goes with sparsity only"},
      {"[{distill: {steps: 5}}, {quantize: {to: q8_0}}]", "", "distill lacks the key data"},
      {"[{distill: {data: d, steps: 5, epochs: 2}}, {quantize: {to: q8_0}}]", "",
       "give steps or epochs"},
      {"[{distill: {data: d, alpha: 2}}, {quantize: {to: q8_0}}]", "", "alpha must be from 0 to 1"},
      {"[{distill: {data: d, divergence: l2}}, {quantize: {to: q8_0}}]", "", "no such divergence"},
      {"[{distill: {data: d, learning_rate: 0}}, {quantize: {to: q8_0}}]", "", "learning rate"},
      {"[{distill: {data: d, match_hidden: -1}}, {quantize: {to: q8_0}}]", "", "from 0 to 1e+06"},
      {"[{distill: {data: d, cache: c, match_hidden: 1}}, {quantize: {to: q8_0}}]", "",
       "name the teacher"},
      {"[{distill: {data: d, on_policy_tokens: 5}}, {quantize: {to: q8_0}}]", "",
       "needs on_policy"},
      {"[{distill: {data: d, epochs: -1}}, {quantize: {to: q8_0}}]", "", "epochs must be above 0"},
      {"[{distill: {data: d, precision: f16}}, {quantize: {to: q8_0}}]", "", "bf16 and f32"},
      {"[{finetune: {data: d, alpha: 1}}, {quantize: {to: q8_0}}]", "", "alpha"},
      {"[{finetune: {data: d, lora_rank: 8, lora_targets: [w1]}}, {quantize: {to: q8_0}}]", "",
       "gate_up"},
      {"[{finetune: {data: d, lora_alpha: 8}}, {quantize: {to: q8_0}}]", "", "needs lora_rank"},
      {"[{prune: {method: magnitude, sparsity: 50%}}, {finetune: {data: d, lora_rank: 8, "
       "lora_dropout: 0.1}}, {quantize: {to: q8_0}}]",
       "", "zeros are kept"},
      {"[calibrate, {finetune: {data: d}}, {quantize: {to: q8_0, method: gptq}}]", calibration,
       "put finetune before calibrate"},
      {"[calibrate, {distill: {data: d}}, {quantize: {to: q8_0, method: gptq}}]", calibration,
       "put distill before calibrate"},
      {"[{quantize: {to: q8_0}}, {distill: {data: d}}]", "", "the model is quantized"},
      {"[{prune: {method: magnitude, sparsity: 50%}}, {distill: {data: d}}, {quantize: {to: "
       "q4_k_m}}]",
       "", "does not keep the zeros"},
      {"[{distill: {data: d, layerwise: true, alpha: 1}}, {quantize: {to: q8_0}}]", "",
       "layers learn outputs, without alpha"},
      {"[{distill: {data: d, layerwise: true, lora_rank: 4}}, {quantize: {to: q8_0}}]", "",
       "without lora_rank"},
      {"[{finetune: {data: d, layerwise: true}}, {quantize: {to: q8_0}}]", "", "layerwise"},
      {"[{distill: {data: d, qat: q3_x}}]", "", "distill: qat: unknown format"},
      {"[{distill: {data: d, qat: q3_k_s}}, {quantize: {to: q3_k_s}}]", "",
       "quantize cannot follow here: the model is quantized already"},
      {"[{distill: {data: d, qat: q3_k_s}}, {distill: {data: d}}]", "",
       "distill cannot follow here: the model is quantized already"},
      {"[{prune: {method: magnitude, sparsity: '2:4'}}, {distill: {data: d, qat: q4_k_m}}]", "",
       "q4_k_m does not keep the zeros"},
      {"[{distill: {data: d, learn_scales: true}}, {quantize: {to: q8_0}}]", "",
       "distill: scales are learned beside the weights of a format that is trained through"},
      {"[{distill: {data: d, moments: f16}}, {quantize: {to: q8_0}}]", "", "moments"},
      {"[{distill: {data: d, teacher_engine: gpu}}, {quantize: {to: q8_0}}]", "", "teacher_engine"},
      {"[{distill: {data: d, layerwise: true, teacher_engine: runtime}}, {quantize: {to: q8_0}}]",
       "", "layerwise: layers learn outputs, without teacher_engine"},
      {"[{scales: {data: d}}, {quantize: {to: q8_0}}]", "",
       "scales cannot follow here: nothing is quantized yet"},
      {"[{quantize: {to: q8_0}}, {scales: {}}]", "", "scales lacks the key data"},
      {"[{quantize: {to: q8_0}}, eval, {scales: {data: d}}]", "evaluation: {text: e}\n",
       "put scales before eval"},
      {"[{distill: {data: d, qat: s24_f16, learn_scales: true}}]", "", "s24_f16 has no blocks"},
      {"[{distill: {data: d, cache: c, teacher_engine: runtime}}, {quantize: {to: q8_0}}]", "",
       "teacher_engine has no use with cache"},
      {"[{quantize: {to: q8_0}}, {scales: {data: d, qat: q4_0}}]", "", "qat"},
      {"[{quantize: {to: q8_0}}, pack, {scales: {data: d}}]", "",
       "scales cannot follow here: the model is packed already"},
      {"[{distill: {data: d}}]", "", "no pass writes a file; quantize, or qat in distill"},
      {"[7]", "", "a pass is a name"},
      {"[{quantize: {to: q4_0}, eval: {}}]", "", "a pass is a name"},
      {"[quantize]", "", "give one of to, target_bytes and target_bpw"},
      {"[{quantize: {to: q4_0, target_bpw: 4.5}}]", "", "give one of to, target_bytes"},
      {"[{quantize: {target_bpw: 33}}]", "", "target_bpw must be above 0 and at most 32"},
      {"[{quantize: {target_bpw: four}}]", "", "target_bpw must be a number"},
      {"[{quantize: {target_bytes: 0}}]", "", "target_bytes must be from 1"},
      {"[{quantize: {target_bpw: 4, pure: true}}]", "", "pure has no use with a target size"},
      {"[{quantize: {target_bytes: 9, method: gptq}}]", calibration,
       "a target size needs a calibrate pass"},
      {"[{calibrate: {hessians: false}}, {quantize: {target_bytes: 9}}]", calibration,
       "a target size needs the hessians"},
      {"[{prune: {method: magnitude, sparsity: 50%}}, calibrate, {quantize: {target_bpw: 4}}]",
       calibration, "do not keep the zeros"},
      {"[{quantize: [q4_0]}]", "", "the keys of quantize must be a map"},
      {"[{quantize: {to: q9}}]", "", "q9"},
      {"[{quantize: {to: q4_0, bits: 4}}]", "", "unknown key \"bits\" in quantize"},
      {"[{quantize: {to: q4_0, pure: 1}}]", "", "pure must be true or false"},
      {"[{quantize: {to: q4_0, tensor_types: [x]}}]", "", "PATTERN=FORMAT"},
      {"[{quantize: {to: q4_0, output_type: q4_9}}]", "", "output_type: unknown format"},
      {"[{quantize: {to: q4_0, method: magic}}]", "", "no such method"},
      {"[{quantize: {to: q4_0, method: rotate+rtn}}]", "", "a pass of its own"},
      {"[{quantize: {to: q4_0, method: gptq}}]", "", "needs a calibration text"},
      {"[{quantize: {to: q4_0, method: imatrix}}]", calibration, "needs a calibrate pass"},
      {"[{calibrate: {hessians: false}}, {quantize: {to: q4_0, method: gptq}}]", calibration,
       "needs the hessians"},
      {"[{rotate: {seed: 1}}, {quantize: {to: q4_0}}]", "", "it takes none"},
      {"[rotate, rotate, {quantize: {to: q4_0}}]", "", "stands there twice"},
      {"[calibrate, {quantize: {to: q4_0}}]", "", "has no calibration text"},
      {"[{quantize: {to: q4_0}}, rotate]", "", "rotate cannot follow here: the model is quantized"},
      {"[pack, {quantize: {to: q4_0}}]", "", "pack cannot follow here: nothing is quantized yet"},
      {"[eval, {quantize: {to: q4_0}}]", evaluation, "nothing is quantized yet"},
      {"[{quantize: {to: q4_0}}, eval]", "", "has no evaluation text"},
      {"[{quantize: {to: q4_0}}]", calibration, "line 3, column 1: no pass reads the calibration"},
      {"[{quantize: {to: q4_0}}]", evaluation, "no pass reads the evaluation text"},
  };
  for (const auto& row : rows) {
    CAPTURE(row.passes);
    const std::string message = PassesError(row.passes, row.sections);
    CAPTURE(message);
    CHECK(message.find(row.message) != std::string::npos);
  }
}

TEST_CASE("structure may go before weights are set to zero, and quantizing keeps what it likes") {
  const std::string head = "model: m\noutput: o.gguf\ncalibration: {text: c.txt}\npasses:\n";
  const auto recipe = ParseRecipe(
      head +
          "  - prune: {method: flap, ffn: \"25%\", heads: 25%, layers: 1, width: 192}\n"
          "  - prune: {method: minitron, ffn: 10%, multiple: 16, repair: false}\n"
          "  - prune: {method: sparsegpt, sparsity: \"2:4\"}\n  - quantize: {to: s24_q4}\n",
      "r.yaml");
  REQUIRE_MESSAGE(recipe, (recipe ? "" : recipe.error().message));
  CHECK(recipe->passes.size() == 4);
  const auto dense = ParseRecipe(
      head + "  - prune: {method: flap, ffn: 25%}\n  - quantize: {to: q4_k_m}\n", "r.yaml");
  CHECK_MESSAGE(dense, (dense ? "" : dense.error().message));
}

TEST_CASE("what learns through a quantizer is quantized: it can be packed and measured") {
  const auto recipe = ParseRecipe(
      "model: m\noutput: o.gguf\nevaluation: {text: e.txt}\npasses:\n  - rotate\n"
      "  - distill: {data: d, epochs: 1}\n  - distill: {data: d, qat: q3_k_s, learn_scales: true}\n"
      "  - scales: {data: d, alpha: 1}\n  - pack\n  - eval\n",
      "r.yaml");
  REQUIRE_MESSAGE(recipe, (recipe ? "" : recipe.error().message));
  const unsigned stages[] = {kFloatModel,     kFloatModel,  kQuantizedModel,
                             kQuantizedModel, kPackedModel, kPackedModel};
  for (size_t i = 0; i < 6; ++i) CHECK(recipe->passes[i].leaves == stages[i]);
}

TEST_CASE("the template is a recipe") {
  for (const char* model : {"model", "a folder/with \"quotes\": and # signs"}) {
    const auto recipe = ParseRecipe(RecipeTemplate(model), "r.yaml");
    REQUIRE_MESSAGE(recipe, (recipe ? "" : recipe.error().message));
    CHECK(recipe->model == model);
    CHECK(recipe->passes.size() == 2);
  }
}

TEST_CASE("a card takes the bytes of its placeholder and reads back") {
  EvaluationText text;
  text.path = "a/held \"out\".txt";
  Metadata metadata;
  SetCard(PlaceholderCard(text, false), text, &metadata);
  const size_t size = metadata.GetString(kCardKey)->size();
  Json card;
  card.Set("kl_mean", 0.125).Set("tokens", 7);
  SetCard(card, text, &metadata);
  CHECK(metadata.GetString(kCardKey)->size() == size);
  const auto found = FindCard(metadata);
  REQUIRE(found);
  CHECK(found->Dump() == card.Dump());
  CHECK(CardText(*found).find("0.12500 nats") != std::string::npos);
  SetCard(PlaceholderCard(text, true), text, &metadata);
  const size_t with_dense = metadata.GetString(kCardKey)->size();
  CHECK(with_dense > size);
  SetDenseCard(Json().Set("kl_mean", 0.25).Set("top1_agreement", 0.5), 1000, &card);
  SetCard(card, text, &metadata);
  CHECK(metadata.GetString(kCardKey)->size() == with_dense);
  CHECK(CardText(*FindCard(metadata)).find("KL 0.25000 nats, top-1 agreement 50.00 %, in 1000") !=
        std::string::npos);
  SetDenseCard(Json(), 0, &card);
  CHECK(CardText(card).find("none can be made") != std::string::npos);
  metadata.Set(kCardKey, std::string("[1]"));
  CHECK(!FindCard(metadata));
}

}  // namespace
}  // namespace edgewise
