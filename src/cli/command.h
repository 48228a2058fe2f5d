// One row and one file per subcommand. A row's `add` registers options on its parser and returns
// what runs them.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "base/json.h"
#include "base/progress.h"
#include "base/result.h"

namespace CLI {
class App;
}

namespace edgewise::cli {

// Flags that every verb has, and where its results go.
struct Common {
  bool json = false;
  bool quiet = false;
  int threads = 0;  // 0: all CPUs this process may use
  Progress* progress = nullptr;
  int Threads() const;
};

using Runner = std::function<Status()>;

struct Command {
  const char* name;
  const char* summary;   // one line
  const char* examples;  // two or more lines, each a real command
  Runner (*add)(CLI::App& app, const Common& common);
};

Runner AddAudit(CLI::App& app, const Common& common);
Runner AddBench(CLI::App& app, const Common& common);
Runner AddCalibrate(CLI::App& app, const Common& common);
Runner AddChat(CLI::App& app, const Common& common);
Runner AddCompress(CLI::App& app, const Common& common);
Runner AddConvert(CLI::App& app, const Common& common);
Runner AddDetokenize(CLI::App& app, const Common& common);
Runner AddDistill(CLI::App& app, const Common& common);
Runner AddDoctor(CLI::App& app, const Common& common);
Runner AddEval(CLI::App& app, const Common& common);
Runner AddExport(CLI::App& app, const Common& common);
Runner AddFinetune(CLI::App& app, const Common& common);
Runner AddFit(CLI::App& app, const Common& common);
Runner AddInspect(CLI::App& app, const Common& common);
Runner AddPack(CLI::App& app, const Common& common);
Runner AddPretrain(CLI::App& app, const Common& common);
Runner AddPrune(CLI::App& app, const Common& common);
Runner AddQuantize(CLI::App& app, const Common& common);
Runner AddRecipe(CLI::App& app, const Common& common);
Runner AddSample(CLI::App& app, const Common& common);
Runner AddReport(CLI::App& app, const Common& common);
Runner AddReproduce(CLI::App& app, const Common& common);
Runner AddRun(CLI::App& app, const Common& common);
Runner AddTokenize(CLI::App& app, const Common& common);
Runner AddUnpack(CLI::App& app, const Common& common);

}  // namespace edgewise::cli
