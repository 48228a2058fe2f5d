#include "pipeline/training_page.h"

#include <doctest/doctest.h>

#include "base/strings.h"

namespace edgewise {
namespace {

TrainSummary Summary() {
  TrainSummary summary;
  summary.output = "folder/<small>.gguf";
  summary.format = "text";
  summary.steps = 3;
  summary.held_out_loss = 1.25;
  summary.held_out_kl = 0.0625;
  return summary;
}

std::string Line(int step, const std::string& loss, const std::string& more = "") {
  return Format("{\"step\":%d,\"loss\":%s,\"gradient_norm\":1.5,\"learning_rate\":0.001%s}\n", step,
                loss.c_str(), more.c_str());
}

TEST_CASE("The page shows curves, figures and settings, escaped") {
  const std::string log = Line(1, "3") + Line(2, "null") +
                          Line(3, "2", ",\"held_out_loss\":1.25,\"held_out_kl\":0.0625");
  Json settings{JsonObject{}};
  settings.Set("divergence", "<kl>").Set("alpha", 0.5);
  const auto page = TrainingHtml(Summary(), settings, log);
  REQUIRE_MESSAGE(page, (page ? "" : page.error().message));
  CHECK(page->find("&lt;small&gt;.gguf") != std::string::npos);
  CHECK(page->find("<small>") == std::string::npos);
  CHECK(page->find("&lt;kl&gt;") != std::string::npos);
  CHECK(page->find("1.2500 nats") != std::string::npos);
  // The loss that is not finite parts its curve in two.
  size_t curves = 0;
  for (size_t at = 0; (at = page->find("<polyline", at)) != std::string::npos; ++at) ++curves;
  CHECK(curves == 2 + 1 + 1 + 1 + 1);
  CHECK(page->find("0.06250 nats") != std::string::npos);
  CHECK(page->find("nan") == std::string::npos);
}

TEST_CASE("A long log is drawn with few points") {
  std::string log;
  for (int step = 1; step <= 5000; ++step) log += Line(step, "2");
  const auto page = TrainingHtml(Summary(), Json{JsonObject{}}, log);
  REQUIRE(page);
  CHECK(page->size() < 60000);
}

TEST_CASE("A broken line of the log is named") {
  const auto page = TrainingHtml(Summary(), Json{JsonObject{}}, Line(1, "3") + "{\"step\":2}\n");
  REQUIRE(!page);
  CHECK(page.error().code == Code::kBadData);
  CHECK(page.error().message.find("line 2 of the log") != std::string::npos);
}

}  // namespace
}  // namespace edgewise
