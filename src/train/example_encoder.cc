#include "train/example_encoder.h"

#include <algorithm>
#include <ctime>
#include <string>
#include <utility>

#include "base/json.h"
#include "base/strings.h"

namespace edgewise::train {
namespace {

constexpr std::string_view kAssistant = "assistant";
// Each answer takes a rendering of all messages before it.
constexpr size_t kMaxMessages = 1000;

// What templates are told of the time, so that a file gives the same tokens on any day: the date
// that Llama 3.1's template takes where it is told none, 26 July 2024.
std::tm FixedDate() {
  std::tm date{};
  date.tm_year = 124, date.tm_mon = 6, date.tm_mday = 26, date.tm_wday = 5, date.tm_yday = 207;
  return date;
}

std::string Joined(const std::vector<PromptPart>& parts) {
  std::string text;
  for (const PromptPart& part : parts) text += part.text;
  return text;
}

// Bytes [begin, end) of the joined parts.
std::vector<PromptPart> Slice(const std::vector<PromptPart>& parts, size_t begin, size_t end) {
  std::vector<PromptPart> slice;
  size_t at = 0;
  for (const PromptPart& part : parts) {
    const size_t first = std::max(begin, at), last = std::min(end, at + part.text.size());
    if (first < last) slice.push_back({part.text.substr(first - at, last - first), part.trusted});
    at += part.text.size();
  }
  return slice;
}

// A document in the making.
class Document {
 public:
  explicit Document(const PromptEncoder& prompt) : prompt_(prompt) {}
  Status Append(const std::vector<PromptPart>& parts, bool learned) {
    EW_TRY(prompt_.Append(parts, &tokens_));
    learned_.resize(tokens_.size(), learned);
    return Ok{};
  }
  void AppendLearned(std::optional<int32_t> token) {
    if (!token) return;
    tokens_.push_back(*token);
    learned_.push_back(1);
  }
  void MoveTo(Corpus* corpus) const { corpus->Append(tokens_, learned_); }

 private:
  const PromptEncoder& prompt_;
  std::vector<int32_t> tokens_;
  std::vector<uint8_t> learned_;
};

std::string AlpacaPrompt(const Instruction& example) {
  const bool input = !Trim(example.input).empty();
  std::string text = "Below is an instruction that describes a task";
  text += input ? ", paired with an input that provides further context. " : ". ";
  text += "Write a response that appropriately completes the request.\n\n### Instruction:\n";
  text += example.instruction;
  if (input) text.append("\n\n### Input:\n").append(example.input);
  return text + "\n\n### Response:";
}

// The messages up to the last answer, which is one of them; 0: there is no answer.
size_t CountUpToLastAnswer(const std::vector<Message>& messages) {
  size_t count = messages.size();
  while (count > 0 && messages[count - 1].role != kAssistant) --count;
  return count;
}

Error Unlike(size_t answer) {
  return MakeError(Code::kUnsupported,
                   "the chat template renders the prompt for message %zu, an answer, otherwise "
                   "than the whole conversation up to there, so which tokens are the answer's "
                   "cannot be told; split the conversation, or give the model another template",
                   answer + 1);
}

Status CheckAnswer(std::string_view answer) {
  if (!Trim(answer).empty()) return Ok{};
  return Error{Code::kBadData, "the answer is empty"};
}

}  // namespace

ExampleEncoder::ExampleEncoder(const Tokenizer& tokenizer, std::string_view chat_template)
    : vocab_(&tokenizer.vocab()), prompt_(tokenizer) {
  if (chat_template.empty()) return;
  template_ = ChatTemplate::Parse(std::string(chat_template))
                  .In("the model's chat template cannot be used");
}

Status ExampleEncoder::AddText(std::string_view text, Corpus* corpus) const {
  if (Trim(text).empty()) return Error{Code::kBadData, "the text is empty"};
  Document document(prompt_);
  EW_TRY(document.Append({{std::string(text), false}}, true));
  document.AppendLearned(vocab_->eos);
  document.MoveTo(corpus);
  return Ok{};
}

Status ExampleEncoder::AddCompletion(std::string_view prompt, std::string_view completion,
                                     Corpus* corpus) const {
  EW_TRY(CheckAnswer(completion));
  Document document(prompt_);
  EW_TRY(document.Append({{std::string(prompt), false}}, false));
  EW_TRY(document.Append({{std::string(completion), false}}, true));
  document.AppendLearned(vocab_->eos);
  document.MoveTo(corpus);
  return Ok{};
}

Status ExampleEncoder::AddInstruction(const Instruction& example, Corpus* corpus) const {
  EW_TRY(CheckAnswer(example.response));
  if (template_) {
    std::string task(example.instruction);
    if (!Trim(example.input).empty()) task.append("\n\n").append(example.input);
    return AddConversation({{"user", task}, {"assistant", example.response}}, corpus);
  }
  return AddCompletion(AlpacaPrompt(example), example.response, corpus);
}

Result<std::vector<PromptPart>> ExampleEncoder::Render(const std::vector<Message>& messages,
                                                       size_t count,
                                                       bool add_generation_prompt) const {
  Json array = JsonArray();
  for (size_t i = 0; i < count; ++i) {
    Json message;
    array.Append(message.Set("role", messages[i].role).Set("content", messages[i].text));
  }
  return (*template_)->Render(ChatContext(*vocab_, array, add_generation_prompt), FixedDate());
}

Result<std::vector<ExampleEncoder::Answer>> ExampleEncoder::FindAnswers(
    const std::vector<Message>& messages, std::string_view whole) const {
  std::vector<Answer> answers;
  for (size_t i = 0; i < CountUpToLastAnswer(messages); ++i) {
    if (messages[i].role != kAssistant) continue;
    EW_TRY(CheckAnswer(messages[i].text).In(Format("message %zu", i + 1)));
    EW_TRY(const std::vector<PromptPart> prompt, Render(messages, i, true));
    const std::string before = Joined(prompt);
    const bool follows = answers.empty() || answers.back().begin < before.size();
    if (!whole.starts_with(before) || before.size() == whole.size() || !follows) return Unlike(i);
    answers.push_back({i, before.size()});
  }
  return answers;
}

Status ExampleEncoder::AddConversation(const std::vector<Message>& messages, Corpus* corpus) const {
  if (!template_) {
    return Error{Code::kUnsupported,
                 "the model has no chat template to render a conversation by; give it one, or "
                 "train on instructions or text, which need none"};
  }
  if (!*template_) return template_->error();
  if (messages.size() > kMaxMessages) {
    return MakeError(Code::kBadData, "the conversation has %zu messages; at most %zu are read here",
                     messages.size(), kMaxMessages);
  }
  const size_t count = CountUpToLastAnswer(messages);
  if (count == 0) return Error{Code::kBadData, "the conversation has no answer"};
  EW_TRY(const std::vector<PromptPart> whole, Render(messages, count, false));
  EW_TRY(std::vector<Answer> answers, FindAnswers(messages, Joined(whole)));
  const size_t size = Joined(whole).size();
  Document document(prompt_);
  size_t done = 0;
  bool ended = false;
  for (size_t i = 0; i < answers.size(); ++i) {
    const auto [message, begin] = answers[i];
    const size_t next = i + 1 < answers.size() ? answers[i + 1].begin : size;
    const std::vector<PromptPart> answer = Slice(whole, begin, next);
    size_t length = prompt_.FindEndOfGeneration(answer);
    ended = length != std::string::npos;
    if (!ended) {  // no token ends the answer: all that it adds is learned
      EW_TRY(const std::vector<PromptPart> added, Render(messages, message + 1, false));
      const std::string upto = Joined(added);
      if (upto.size() <= begin || upto.size() > next || !Joined(whole).starts_with(upto)) {
        return Unlike(message);
      }
      length = upto.size() - begin;
    }
    EW_TRY(document.Append(Slice(whole, done, begin), false));
    EW_TRY(document.Append(Slice(answer, 0, length), true));
    done = begin + length;
  }
  if (!ended) document.AppendLearned(vocab_->eos);
  document.MoveTo(corpus);
  return Ok{};
}

}  // namespace edgewise::train
