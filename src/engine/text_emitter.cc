#include "engine/text_emitter.h"

#include <algorithm>

#include "base/strings.h"

namespace edgewise {
namespace {

// True when nothing but control tokens stands before and the vocabulary puts a space before a text.
bool StartsText(const Tokenizer& tokenizer, std::span<const int32_t> before) {
  const Vocab& vocab = tokenizer.vocab();
  const bool adds_space = vocab.kind == TokenizerKind::kWordPiece ||
                          (vocab.kind != TokenizerKind::kBpe && vocab.add_space_prefix);
  return adds_space && std::all_of(before.begin(), before.end(),
                                   [&](int32_t id) { return tokenizer.PieceBytes(id).empty(); });
}

// The length of the longest end of `text` that begins some stop string.
size_t OpenStop(std::string_view text, const std::vector<std::string>& stops) {
  size_t longest = 0;
  for (const std::string_view stop : stops) {
    for (size_t size = std::min(stop.size() - 1, text.size()); size > longest; --size) {
      if (text.ends_with(stop.substr(0, size))) longest = size;
    }
  }
  return longest;
}

}  // namespace

TextEmitter::TextEmitter(const Tokenizer& tokenizer, std::span<const int32_t> before,
                         const std::vector<std::string>* stop,
                         const std::function<bool(std::string_view)>* on_text)
    : decoder_(tokenizer),
      stop_(stop),
      on_text_(on_text),
      strip_space_(StartsText(tokenizer, before)) {
  // Only an unfinished character matters, so its at most four bytes, one token each, are enough.
  for (const int32_t id : before.last(std::min<size_t>(before.size(), 4))) decoder_.Push(id);
}

Status TextEmitter::CheckStops(const std::vector<std::string>& stop) {
  for (const std::string& s : stop) {
    if (s.empty()) return MakeError(Code::kInvalidArgument, "a stop string is empty");
    if (!IsUtf8(s)) {
      return MakeError(Code::kInvalidArgument, "the stop string %s is not UTF-8", Quote(s).c_str());
    }
  }
  return Ok{};
}

TextEmitter::Outcome TextEmitter::Push(int32_t id) { return Take(decoder_.Push(id), false); }

TextEmitter::Outcome TextEmitter::Finish() { return Take(decoder_.Finish(), true); }

TextEmitter::Outcome TextEmitter::Take(std::string decoded, bool last) {
  if (strip_space_ && !decoded.empty()) {
    if (decoded[0] == ' ') decoded.erase(0, 1);
    strip_space_ = false;
  }
  held_ += decoded;
  size_t ready = held_.size();
  bool stopped = false;
  for (const std::string& stop : *stop_) {
    const size_t found = held_.find(stop);
    if (found == std::string::npos) continue;
    ready = std::min(ready, found);
    stopped = true;
  }
  if (!stopped && !last) ready -= OpenStop(held_, *stop_);
  const std::string_view out = std::string_view(held_).substr(0, ready);
  bool wanted = true;
  if (!out.empty()) {
    text_ += out;
    wanted = !*on_text_ || (*on_text_)(out);
  }
  held_.erase(0, ready);
  if (stopped) return Outcome::kStopString;
  return wanted ? Outcome::kContinue : Outcome::kCancelled;
}

}  // namespace edgewise
