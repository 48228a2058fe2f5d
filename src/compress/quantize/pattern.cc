#include "compress/quantize/pattern.h"

#include <utility>

#include "base/strings.h"

namespace edgewise {
namespace {

using Op = Pattern::Op;
using Program = std::vector<Pattern::Instruction>;

constexpr size_t kMaxLength = 1000;
constexpr int kMaxDepth = 50;

void AddLetter(unsigned char byte, std::bitset<256>* set) {
  set->set(byte);
  if (byte >= 'a' && byte <= 'z') set->set(byte - 'a' + 'A');
  if (byte >= 'A' && byte <= 'Z') set->set(byte - 'A' + 'a');
}

void AddRange(unsigned char first, unsigned char last, std::bitset<256>* set) {
  for (int byte = first; byte <= last; ++byte) AddLetter(static_cast<unsigned char>(byte), set);
}

bool IsPunctuation(char c) {
  return (c >= '!' && c <= '/') || (c >= ':' && c <= '@') || (c >= '[' && c <= '`') ||
         (c >= '{' && c <= '~');
}

// Recursive descent; each production returns a program whose jumps are relative, so that
// concatenation is appending.
class Parser {
 public:
  explicit Parser(std::string_view source) : source_(source) {}

  Result<Program> Parse() {
    EW_TRY(Program program, Alternatives(0));
    if (at_ < source_.size()) return Wrong("')' without '('");
    program.push_back({Op::kMatch, 0, 0, {}});
    return program;
  }

 private:
  Result<Program> Alternatives(int depth) {
    if (depth > kMaxDepth) return Wrong("too many nested parentheses");
    EW_TRY(Program left, Sequence(depth));
    while (Take('|')) {
      EW_TRY(Program right, Sequence(depth));
      Program both;
      both.push_back({Op::kSplit, 1, Size(left) + 2, {}});
      Append(left, &both);
      both.push_back({Op::kJump, Size(right) + 1, 0, {}});
      Append(right, &both);
      left = std::move(both);
    }
    return left;
  }

  Result<Program> Sequence(int depth) {
    Program all;
    while (at_ < source_.size() && source_[at_] != '|' && source_[at_] != ')') {
      EW_TRY(Program atom, Atom(depth));
      EW_TRY(Program repeated, Repeated(std::move(atom)));
      Append(repeated, &all);
    }
    return all;
  }

  Result<Program> Repeated(Program atom) {
    if (at_ >= source_.size()) return atom;
    const char c = source_[at_];
    if (c == '{') return Wrong("counts in braces are not supported; write the repetition out");
    if (c != '*' && c != '+' && c != '?') return atom;
    ++at_;
    Program result;
    if (c == '+') {
      result = std::move(atom);
      result.push_back({Op::kSplit, -Size(result), 1, {}});
    } else {
      result.push_back({Op::kSplit, 1, Size(atom) + (c == '*' ? 2 : 1), {}});
      Append(atom, &result);
      if (c == '*') result.push_back({Op::kJump, -(Size(atom) + 1), 0, {}});
    }
    if (at_ < source_.size() &&
        (source_[at_] == '*' || source_[at_] == '+' || source_[at_] == '?')) {
      return Wrong("two repetition signs in a row are not supported");
    }
    return result;
  }

  Result<Program> Atom(int depth) {
    const char c = source_[at_++];
    switch (c) {
      case '(':
        return Group(depth);
      case '[':
        return Class();
      case '\\':
        return Escape();
      case '^':
        return Program{{Op::kTextBegin, 0, 0, {}}};
      case '$':
        return Program{{Op::kTextEnd, 0, 0, {}}};
      case '.':
        return Program{{Op::kByte, 0, 0, std::bitset<256>().set()}};
      case '*':
      case '+':
      case '?':
        --at_;
        return Wrong("nothing before it to repeat");
      case '{':
        --at_;
        return Wrong("counts in braces are not supported; write the repetition out");
      default:
        return Bytes([&](std::bitset<256>* set) { AddLetter(static_cast<unsigned char>(c), set); });
    }
  }

  Result<Program> Group(int depth) {
    if (Take('?')) {
      if (!Take(':')) {
        --at_;
        return Wrong("of the '(?' groups only '(?:' is supported");
      }
    }
    EW_TRY(Program inner, Alternatives(depth + 1));
    if (!Take(')')) return Wrong("'(' without ')'");
    return inner;
  }

  // A shorthand (\d, \w) or one escaped byte, added to `set`.
  Status EscapeInto(std::bitset<256>* set) {
    if (at_ >= source_.size()) return Wrong("'\\' at the end");
    const char c = source_[at_++];
    if (c == 'd') {
      AddRange('0', '9', set);
    } else if (c == 'w') {
      AddRange('0', '9', set);
      AddRange('a', 'z', set);
      set->set('_');
    } else if (IsPunctuation(c)) {
      set->set(static_cast<unsigned char>(c));
    } else {
      --at_;
      return Wrong("of the escapes only \\d, \\w and '\\' before punctuation are supported");
    }
    return Ok{};
  }

  Result<Program> Escape() {
    std::bitset<256> set;
    EW_TRY(EscapeInto(&set));
    return Program{{Op::kByte, 0, 0, set}};
  }

  Result<Program> Class() {
    std::bitset<256> set;
    const bool negated = Take('^');
    bool first = true;
    while (true) {
      if (at_ >= source_.size()) return Wrong("'[' without ']'");
      const char c = source_[at_++];
      if (c == ']' && !first) break;
      first = false;
      if (c == '\\') {
        EW_TRY(EscapeInto(&set));
        continue;
      }
      char last = c;
      if (at_ + 1 < source_.size() && source_[at_] == '-' && source_[at_ + 1] != ']') {
        last = source_[at_ + 1];
        if (last == '\\' || static_cast<unsigned char>(last) < static_cast<unsigned char>(c)) {
          return Wrong("a malformed range in '[...]'");
        }
        at_ += 2;
      }
      AddRange(static_cast<unsigned char>(c), static_cast<unsigned char>(last), &set);
    }
    return Program{{Op::kByte, 0, 0, negated ? ~set : set}};
  }

  template <class Fill>
  Program Bytes(Fill fill) {
    std::bitset<256> set;
    fill(&set);
    return Program{{Op::kByte, 0, 0, set}};
  }

  bool Take(char c) {
    if (at_ >= source_.size() || source_[at_] != c) return false;
    ++at_;
    return true;
  }
  static int Size(const Program& program) { return static_cast<int>(program.size()); }
  static void Append(const Program& part, Program* whole) {
    whole->insert(whole->end(), part.begin(), part.end());
  }

  Error Wrong(const char* what) const {
    return MakeError(Code::kInvalidArgument, "pattern %s, character %zu: %s",
                     Quote(source_).c_str(), at_ + 1, what);
  }

  std::string_view source_;
  size_t at_ = 0;
};

// The instructions that are waiting for the next byte, each once.
class StateSet {
 public:
  explicit StateSet(size_t size) : present_(size, 0) {}

  // Follows jumps from `start` until instructions that read a byte; returns true when kMatch is
  // reached.
  bool Add(const Program& program, int start, bool at_begin, bool at_end) {
    stack_.push_back(start);
    bool matched = false;
    while (!stack_.empty()) {
      const int pc = stack_.back();
      stack_.pop_back();
      if (present_[static_cast<size_t>(pc)]) continue;
      present_[static_cast<size_t>(pc)] = 1;
      const auto& step = program[static_cast<size_t>(pc)];
      switch (step.op) {
        case Op::kByte:
          waiting.push_back(pc);
          break;
        case Op::kSplit:
          stack_.push_back(pc + step.first);
          stack_.push_back(pc + step.second);
          break;
        case Op::kJump:
          stack_.push_back(pc + step.first);
          break;
        case Op::kTextBegin:
          if (at_begin) stack_.push_back(pc + 1);
          break;
        case Op::kTextEnd:
          if (at_end) stack_.push_back(pc + 1);
          break;
        case Op::kMatch:
          matched = true;
          break;
      }
    }
    return matched;
  }

  void Clear() {
    waiting.clear();
    present_.assign(present_.size(), 0);
  }

  std::vector<int> waiting;

 private:
  std::vector<uint8_t> present_;
  std::vector<int> stack_;
};

}  // namespace

Result<Pattern> Pattern::Parse(std::string_view source) {
  if (source.empty()) return MakeError(Code::kInvalidArgument, "the pattern is empty");
  if (source.size() > kMaxLength) {
    return MakeError(Code::kInvalidArgument,
                     "the pattern has %zu characters; at most %zu are allowed", source.size(),
                     kMaxLength);
  }
  Pattern pattern;
  EW_TRY(pattern.program_, Parser(source).Parse());
  return pattern;
}

bool Pattern::FoundIn(std::string_view text) const {
  StateSet now(program_.size()), next(program_.size());
  for (size_t i = 0;; ++i) {
    const bool at_end = i == text.size();
    if (now.Add(program_, 0, i == 0, at_end)) return true;
    if (at_end) return false;
    next.Clear();
    for (int pc : now.waiting) {
      if (!program_[static_cast<size_t>(pc)].bytes[static_cast<unsigned char>(text[i])]) continue;
      if (next.Add(program_, pc + 1, false, i + 1 == text.size())) return true;
    }
    std::swap(now, next);
  }
}

}  // namespace edgewise
