// edgewise tokenize and detokenize.
#include <CLI/CLI.hpp>
#include <memory>

#include "base/strings.h"
#include "cli/command.h"
#include "cli/generation_flags.h"
#include "cli/output.h"
#include "engine/vocab_metadata.h"
#include "formats/gguf.h"
#include "text/tokenizer.h"

namespace edgewise::cli {
namespace {

// A GGUF may hold a vocabulary only, so its metadata is enough; other kinds are opened as models.
Result<std::unique_ptr<Tokenizer>> LoadTokenizer(const std::string& model,
                                                 const std::string& tokenizer_path) {
  if (auto file = GgufFile::Open(model)) {
    EW_TRY(Vocab vocab, VocabFromMetadata(file->metadata()).In(model));
    return Tokenizer::Create(std::move(vocab)).In(model);
  } else if (file.error().code == Code::kNotFound && !FileExists(model)) {
    return std::move(file).error();
  }
  EW_TRY(const Checkpoint checkpoint, Checkpoint::Open(model));
  EW_TRY(Vocab vocab, LoadVocab(checkpoint, tokenizer_path));
  return Tokenizer::Create(std::move(vocab)).In(model);
}

struct TokenizeFlags {
  std::string model, tokenizer, prompt, file;
  bool no_special = false, parse_special = false;
};

Status RunTokenize(const TokenizeFlags& flags, const Common& common) {
  std::string text = flags.prompt;
  if (!flags.file.empty()) {
    EW_TRY(text, ReadText(flags.file));
  }
  EW_TRY(const std::unique_ptr<Tokenizer> tokenizer, LoadTokenizer(flags.model, flags.tokenizer));
  EncodeOptions options;
  options.add_special = !flags.no_special;
  options.parse_special = flags.parse_special;
  EW_TRY(const std::vector<int32_t> ids, tokenizer->Encode(text, options));
  if (common.json) {
    Json id_array{JsonArray()}, pieces{JsonArray()};
    for (const int32_t id : ids) {
      id_array.Append(id);
      pieces.Append(tokenizer->PieceBytes(id, true));
    }
    return PrintJson("tokenize", Json().Set("ids", id_array).Set("pieces", pieces));
  }
  std::string line;
  for (const int32_t id : ids) line += (line.empty() ? "" : " ") + std::to_string(id);
  return Print(line + "\n");
}

struct DetokenizeFlags {
  std::string model, tokenizer, ids, file;
  bool keep_special = false;
};

Result<std::vector<int32_t>> ParseIds(std::string_view text) {
  std::vector<int32_t> ids;
  size_t i = 0;
  constexpr std::string_view kSeparators = " \t\r\n,[]";
  while ((i = text.find_first_not_of(kSeparators, i)) != std::string_view::npos) {
    const size_t end = std::min(text.find_first_of(kSeparators, i), text.size());
    EW_TRY(const int64_t id, ParseInt(text.substr(i, end - i)).In("token ids"));
    if (id < INT32_MIN || id > INT32_MAX) {
      return MakeError(Code::kInvalidArgument, "token ids: %lld is no token id",
                       static_cast<long long>(id));
    }
    ids.push_back(static_cast<int32_t>(id));
    i = end;
  }
  return ids;
}

Status RunDetokenize(const DetokenizeFlags& flags, const Common& common) {
  std::string list = flags.ids;
  if (!flags.file.empty()) {
    EW_TRY(list, ReadText(flags.file));
  }
  EW_TRY(const std::vector<int32_t> ids, ParseIds(list));
  EW_TRY(const std::unique_ptr<Tokenizer> tokenizer, LoadTokenizer(flags.model, flags.tokenizer));
  EW_TRY(const std::string text, tokenizer->Decode(ids, flags.keep_special));
  if (common.json) return PrintJson("detokenize", Json().Set("text", text));
  return Print(text);
}

}  // namespace

Runner AddTokenize(CLI::App& app, const Common& common) {
  auto flags = std::make_shared<TokenizeFlags>();
  AddModelFlags(app, &flags->model, &flags->tokenizer);
  CLI::Option* prompt = app.add_option("--prompt", flags->prompt, "Text to tokenize");
  app.add_option("--file", flags->file, "Read the text from this file; - is standard input")
      ->excludes(prompt);
  app.add_flag("--no-special", flags->no_special, "Add no begin or end tokens");
  app.add_flag("--parse-special", flags->parse_special,
               "Control tokens written in the text become their ids");
  return [flags, &common] { return RunTokenize(*flags, common); };
}

Runner AddDetokenize(CLI::App& app, const Common& common) {
  auto flags = std::make_shared<DetokenizeFlags>();
  AddModelFlags(app, &flags->model, &flags->tokenizer);
  CLI::Option* ids =
      app.add_option("--ids", flags->ids, "Token ids, separated by commas or blanks");
  app.add_option("--file", flags->file, "Read the ids from this file; - is standard input")
      ->excludes(ids);
  app.add_flag("--keep-special", flags->keep_special, "Print control tokens too");
  return [flags, &common] { return RunDetokenize(*flags, common); };
}

}  // namespace edgewise::cli
