#include "eval/odd_words.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <span>
#include <string_view>
#include <utility>

#include "eval/logit_stream.h"
#include "eval/windows.h"
#include "kernels/kernels.h"
#include "text/unicode.h"

namespace edgewise {
namespace {

// Where a word begins and where the one after it does.
struct Piece {
  size_t begin, end, next;
};

std::vector<Piece> CutAtBlanks(std::string_view text) {
  std::vector<Piece> pieces;
  bool inside = false;
  for (size_t at = 0; at < text.size();) {
    const size_t begin = at;
    const bool blank = IsWhiteSpace(NextChar(text, &at));
    if (blank && inside) pieces.back().end = begin;
    if (!blank && !inside) {
      if (!pieces.empty()) pieces.back().next = begin;
      pieces.push_back({begin, text.size(), text.size()});
    }
    inside = !blank;
  }
  return pieces;
}

class Search {
 public:
  Search(Engine* engine, KvCache cache)
      : engine_(engine),
        vocab_size_(engine->model().spec().vocab_size),
        cache_(std::move(cache)),
        forward_(engine->model(), &engine->pool()),
        logits_(LogitStream::RowsFor(engine->model().spec().vocab_size) * vocab_size_) {}

  Result<OddWord> Test(std::string_view text, uint32_t max_words) {
    std::vector<Piece> pieces = CutAtBlanks(text);
    pieces.resize(std::min<size_t>(pieces.size(), max_words));
    std::vector<int32_t> tokens;
    for (; !pieces.empty(); pieces.resize(pieces.size() * 3 / 4)) {
      text = text.substr(0, pieces.back().end);
      EW_TRY(tokens, EncodeFromStart(engine_->tokenizer(), text));
      if (tokens.size() <= cache_.capacity()) break;
    }
    OddWord odd;
    if (pieces.size() < 2) return odd;
    odd.words = static_cast<uint32_t>(pieces.size());
    cache_.Clear();
    shared_ = 0;
    EW_TRY(const std::vector<double> nats, Nats(tokens, 1));
    shared_ = tokens.size() - 1;
    std::vector<double> before(nats.size() + 1);  // of the tokens up to each
    std::partial_sum(nats.begin(), nats.end(), before.begin() + 1);
    odd.nats = -HUGE_VAL;
    // From the last word to the first, so that the cache keeps what lies before the removed one.
    for (size_t i = pieces.size(); i-- > 0;) {
      EW_TRY(const double without, Without(text, pieces[i], tokens, before));
      if (before.back() - without <= odd.nats) continue;
      odd.nats = before.back() - without;
      odd.word = text.substr(pieces[i].begin, pieces[i].end - pieces[i].begin);
    }
    return odd;
  }

 private:
  // Nats of the text without `piece`. `tokens`: of the whole text; `before[i]`: their nats below
  // token i + 1.
  Result<double> Without(std::string_view text, const Piece& piece,
                         const std::vector<int32_t>& tokens, const std::vector<double>& before) {
    std::string rest(text.substr(0, piece.begin));
    if (piece.next < text.size()) rest += text.substr(piece.next);
    while (!rest.empty() && rest.back() == ' ') rest.pop_back();
    EW_TRY(std::vector<int32_t> ids, EncodeFromStart(engine_->tokenizer(), rest));
    ids.resize(std::min<size_t>(ids.size(), cache_.capacity()));
    const auto differ = std::mismatch(ids.begin(), ids.end(), tokens.begin(), tokens.end());
    const auto same = static_cast<size_t>(differ.first - ids.begin());
    const size_t from = std::max<size_t>(same, 1);
    shared_ = std::min(shared_, from - 1);
    EW_TRY(const std::vector<double> nats, Nats(ids, from));
    return std::accumulate(nats.begin(), nats.end(), before[from - 1]);
  }

  // Returns the nats of each of tokens[from ..], given all before it. The first `shared_` positions
  // of the cache hold its first tokens.
  Result<std::vector<double>> Nats(std::span<const int32_t> tokens, size_t from) {
    std::vector<double> nats;
    if (from >= tokens.size()) return nats;
    const size_t start = cache_.Truncate(static_cast<uint32_t>(shared_));
    const auto context = tokens.subspan(start, from - 1 - start);
    if (!context.empty()) EW_TRY(forward_.Run(context, &cache_, context.size(), {}));
    while (from < tokens.size()) {
      const size_t count = std::min(tokens.size() - from, logits_.size() / vocab_size_);
      const auto rows = std::span(logits_).first(count * vocab_size_);
      EW_TRY(forward_.Run(tokens.subspan(from - 1, count), &cache_, 0, rows));
      for (size_t i = 0; i < count; ++i, ++from) {
        nats.push_back(
            NegativeLogLikelihood(rows.data() + i * vocab_size_, vocab_size_, tokens[from]));
        if (!std::isfinite(nats.back())) return NotFiniteLogits("model");
      }
    }
    return nats;
  }

  Engine* engine_;
  size_t vocab_size_;
  KvCache cache_;
  ForwardPass forward_;
  std::vector<float> logits_;  // (rows, vocab_size)
  size_t shared_ = 0;          // tokens of the whole text at the start of the cache
};

}  // namespace

Result<std::vector<OddWord>> FindOddWords(Engine* engine,
                                          const std::vector<TrainingExample>& examples,
                                          uint32_t max_words, Progress* progress) {
  const ModelSpec& spec = engine->model().spec();
  EW_TRY(KvCache cache, KvCache::Create(spec, std::min<uint32_t>(spec.context_length, 1024),
                                        kernels::KvFormat::kF16));
  Search search(engine, std::move(cache));
  std::vector<OddWord> found;
  for (const TrainingExample& example : examples) {
    progress->Update("odd words", found.size(), examples.size());
    if (progress->Cancelled()) return Error{Code::kCancelled, "the search was cancelled"};
    EW_TRY(OddWord odd,
           search.Test(example.prompt.empty() ? example.response : example.prompt, max_words));
    found.push_back(std::move(odd));
  }
  progress->Update("odd words", found.size(), examples.size());
  return found;
}

}  // namespace edgewise
