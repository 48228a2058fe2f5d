#include "text/jinja/lexer.h"

#include <algorithm>
#include <array>

#include "base/strings.h"
#include "text/jinja/characters.h"
#include "text/unicode.h"

namespace edgewise::jinja {
namespace {

bool IsDigit(char c) { return c >= '0' && c <= '9'; }
bool IsNameStart(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'; }
bool IsNamePart(char c) { return IsNameStart(c) || IsDigit(c); }
bool IsBlank(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

// Every line end becomes \n, and one at the very end goes away.
std::string NormalizeLineEnds(std::string_view source) {
  std::string text;
  text.reserve(source.size());
  for (size_t i = 0; i < source.size(); ++i) {
    if (source[i] != '\r') {
      text += source[i];
    } else {
      text += '\n';
      if (i + 1 < source.size() && source[i + 1] == '\n') ++i;
    }
  }
  if (!text.empty() && text.back() == '\n') text.pop_back();
  return text;
}

class Lexer {
 public:
  explicit Lexer(std::string_view source) : owned_(NormalizeLineEnds(source)), source_(owned_) {}

  Result<std::vector<Token>> Run() {
    while (at_ < source_.size()) EW_TRY(ReadText());
    Push(TokenKind::kEnd, "end of the template");
    return std::move(tokens_);
  }

 private:
  char Peek(size_t ahead = 0) const {
    return at_ + ahead < source_.size() ? source_[at_ + ahead] : '\0';
  }
  bool LooksAt(std::string_view text) const { return source_.substr(at_).starts_with(text); }

  // Lines are counted up to `position` from where the last count stopped.
  Token At(size_t position, TokenKind kind, std::string text) {
    for (; counted_ < position; ++counted_) {
      if (source_[counted_] == '\n') {
        ++line_;
        line_start_ = counted_ + 1;
      }
    }
    return {kind, std::move(text), line_, static_cast<uint32_t>(position - line_start_ + 1)};
  }
  void Push(TokenKind kind, std::string text) { tokens_.push_back(At(at_, kind, std::move(text))); }
  Error Fail(std::string_view message) {
    return SyntaxError(At(at_, TokenKind::kEnd, ""), message);
  }

  // Reads template text up to the next tag, then the tag.
  Status ReadText() {
    size_t tag = at_;
    while (true) {
      tag = source_.find('{', tag);
      if (tag == std::string_view::npos || tag + 1 >= source_.size()) {
        Push(TokenKind::kText, std::string(source_.substr(at_)));
        at_ = source_.size();
        return Ok{};
      }
      const char next = source_[tag + 1];
      if (next == '%' || next == '{' || next == '#') break;
      ++tag;
    }
    const char kind = source_[tag + 1];
    const char sign = tag + 2 < source_.size() ? source_[tag + 2] : '\0';
    const std::string_view text = TrimBeforeTag(source_.substr(at_, tag - at_), kind, sign);
    if (!text.empty()) Push(TokenKind::kText, std::string(text));
    at_ = tag;
    const size_t opening = sign == '-' || sign == '+' ? 3 : 2;
    if (kind == '#') return SkipComment(opening);
    if (kind == '%' && AtRawBlock(opening)) return ReadRaw();
    Push(kind == '%' ? TokenKind::kBlockBegin : TokenKind::kOutputBegin, kind == '%' ? "{%" : "{{");
    at_ += opening;
    return ReadTag(kind);
  }

  // "-" takes all white space before a tag; a block or comment that is first on its line takes its
  // indentation.
  std::string_view TrimBeforeTag(std::string_view text, char kind, char sign) const {
    if (sign == '-') {
      while (!text.empty() && IsBlank(text.back())) text.remove_suffix(1);
      return text;
    }
    if (sign == '+' || kind == '{') return text;
    const size_t newline = text.rfind('\n');
    if (newline == std::string_view::npos && !line_starting_) return text;
    const size_t line = newline == std::string_view::npos ? 0 : newline + 1;
    return std::all_of(text.begin() + static_cast<std::ptrdiff_t>(line), text.end(), IsBlank)
               ? text.substr(0, line)
               : text;
  }

  // Steps over white space after "-", or over the one line end that trim_blocks takes after a block
  // or comment.
  void FinishTag(bool strip, bool trim_line_end) {
    if (strip) {
      while (at_ < source_.size() && IsBlank(source_[at_])) ++at_;
    } else if (trim_line_end && Peek() == '\n') {
      ++at_;
    }
    line_starting_ = at_ > 0 && source_[at_ - 1] == '\n';
  }

  Status SkipComment(size_t opening) {
    const size_t end = source_.find("#}", at_ + opening);
    if (end == std::string_view::npos) return Fail("a comment without its end '#}'");
    const char sign = end > at_ + opening ? source_[end - 1] : '\0';
    at_ = end + 2;
    FinishTag(sign == '-', sign != '+');
    return Ok{};
  }

  // Matches "WORD" and the closing of a block tag from `from`; returns the position after it, npos
  // when absent.
  size_t MatchWordTag(size_t from, std::string_view word, char* sign) const {
    while (from < source_.size() && IsBlank(source_[from])) ++from;
    if (!source_.substr(from).starts_with(word)) return std::string_view::npos;
    from += word.size();
    while (from < source_.size() && IsBlank(source_[from])) ++from;
    *sign = from < source_.size() ? source_[from] : '\0';
    if (*sign == '-' || *sign == '+') ++from;
    return source_.substr(from).starts_with("%}") ? from + 2 : std::string_view::npos;
  }

  bool AtRawBlock(size_t opening) const {
    char sign;
    return MatchWordTag(at_ + opening, "raw", &sign) != std::string_view::npos;
  }

  Status ReadRaw() {
    char sign = '\0';
    at_ = MatchWordTag(at_ + (Peek(2) == '-' || Peek(2) == '+' ? 3 : 2), "raw", &sign);
    FinishTag(sign == '-', false);
    for (size_t tag = source_.find("{%", at_); tag != std::string_view::npos;
         tag = source_.find("{%", tag + 1)) {
      const char before = tag + 2 < source_.size() ? source_[tag + 2] : '\0';
      const size_t end =
          MatchWordTag(tag + (before == '-' || before == '+' ? 3 : 2), "endraw", &sign);
      if (end == std::string_view::npos) continue;
      const std::string_view text = TrimBeforeTag(source_.substr(at_, tag - at_), '%', before);
      if (!text.empty()) Push(TokenKind::kText, std::string(text));
      at_ = end;
      FinishTag(sign == '-', sign != '+');
      return Ok{};
    }
    return Fail("a raw block without its end '{% endraw %}'");
  }

  // Reads the tokens inside a tag and its end.
  Status ReadTag(char kind) {
    const std::string_view closing = kind == '%' ? "%}" : "}}";
    std::string open_brackets;
    while (true) {
      while (at_ < source_.size() && IsBlank(source_[at_])) ++at_;
      if (at_ >= source_.size())
        return Fail(std::string("the end '") + std::string(closing) + "' is missing");
      const char sign = Peek() == '-' || (Peek() == '+' && kind == '%') ? Peek() : '\0';
      if (open_brackets.empty() && source_.substr(at_ + (sign ? 1 : 0)).starts_with(closing)) {
        Push(kind == '%' ? TokenKind::kBlockEnd : TokenKind::kOutputEnd, std::string(closing));
        at_ += closing.size() + (sign ? 1 : 0);
        FinishTag(sign == '-', kind == '%' && sign != '+');
        return Ok{};
      }
      EW_TRY(ReadToken(&open_brackets));
    }
  }

  Status ReadToken(std::string* open_brackets) {
    const char c = Peek();
    if (c == '"' || c == '\'') return ReadString(c);
    if (IsDigit(c)) return ReadNumber();
    if (IsNameStart(c)) {
      size_t end = at_;
      while (end < source_.size() && IsNamePart(source_[end])) ++end;
      Push(TokenKind::kName, std::string(source_.substr(at_, end - at_)));
      at_ = end;
      return Ok{};
    }
    static constexpr std::array<std::string_view, 26> kOperators = {
        "**", "//", "==", "!=", "<=", ">=", "+", "-", "*", "/", "%", "~", "<",
        ">",  "=",  "(",  ")",  "[",  "]",  "{", "}", ",", ".", ":", "|", ";"};
    const auto found =
        std::find_if(kOperators.begin(), kOperators.end(), [this](auto op) { return LooksAt(op); });
    if (found == kOperators.end()) {
      return Fail("unexpected character " +
                  Quote(source_.substr(at_, DecodeAt(source_, at_).length)));
    }
    EW_TRY(Balance(found->front(), open_brackets));
    Push(TokenKind::kOperator, std::string(*found));
    at_ += found->size();
    return Ok{};
  }

  // Inside brackets "}}" does not end the tag.
  Status Balance(char c, std::string* open_brackets) {
    if (c == '(') open_brackets->push_back(')');
    if (c == '[') open_brackets->push_back(']');
    if (c == '{') open_brackets->push_back('}');
    if (c != ')' && c != ']' && c != '}') return Ok{};
    if (open_brackets->empty() || open_brackets->back() != c)
      return Fail(std::string("unexpected '") + c + "'");
    open_brackets->pop_back();
    return Ok{};
  }

  Status ReadNumber() {
    size_t end = at_;
    const auto digits = [&] {
      while (end < source_.size() &&
             (IsDigit(source_[end]) ||
              (source_[end] == '_' && end + 1 < source_.size() && IsDigit(source_[end + 1])))) {
        ++end;
      }
    };
    const auto digit_at = [&](size_t position) {
      return position < source_.size() && IsDigit(source_[position]);
    };
    digits();
    TokenKind kind = TokenKind::kInteger;
    if (end < source_.size() && source_[end] == '.' && digit_at(end + 1)) {
      kind = TokenKind::kFloat;
      ++end;
      digits();
    }
    if (end < source_.size() && (source_[end] == 'e' || source_[end] == 'E')) {
      const bool sign =
          end + 1 < source_.size() && (source_[end + 1] == '-' || source_[end + 1] == '+');
      if (digit_at(end + (sign ? 2 : 1))) {
        kind = TokenKind::kFloat;
        end += sign ? 2 : 1;
        digits();
      }
    }
    std::string text(source_.substr(at_, end - at_));
    std::erase(text, '_');
    Push(kind, std::move(text));
    at_ = end;
    return Ok{};
  }

  Status ReadString(char quote) {
    const size_t begin = at_++;
    std::string text;
    while (true) {
      if (at_ >= source_.size()) {
        at_ = begin;
        return Fail("a string without its closing quote");
      }
      const char c = source_[at_++];
      if (c == quote) break;
      if (c != '\\') {
        text += c;
      } else {
        EW_TRY(ReadEscape(&text));
      }
    }
    tokens_.push_back(At(begin, TokenKind::kString, std::move(text)));
    return Ok{};
  }

  // As Python: an unknown escape stays as it is written.
  Status ReadEscape(std::string* text) {
    if (at_ >= source_.size()) return Fail("a string without its closing quote");
    const char c = source_[at_++];
    static constexpr std::string_view kLetters = "abfnrtv\\'\"", kMeanings = "\a\b\f\n\r\t\v\\'\"";
    if (const size_t letter = kLetters.find(c); letter != std::string_view::npos) {
      *text += kMeanings[letter];
    } else if (c == '\n') {
      return Ok{};  // a backslash joins two lines
    } else if (c == 'x' || c == 'u' || c == 'U') {
      return ReadHex(c == 'x' ? 2 : c == 'u' ? 4 : 8, text);
    } else if (c >= '0' && c <= '7') {
      char32_t code = static_cast<char32_t>(c - '0');
      for (int i = 0; i < 2 && Peek() >= '0' && Peek() <= '7'; ++i)
        code = code * 8 + static_cast<char32_t>(source_[at_++] - '0');
      AppendChar(code, text);
    } else {
      *text += '\\';
      *text += c;
    }
    return Ok{};
  }

  Status ReadHex(int digits, std::string* text) {
    char32_t code = 0;
    for (int i = 0; i < digits; ++i, ++at_) {
      const char c = Peek();
      const bool letter = (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
      if (!IsDigit(c) && !letter)
        return Fail("a \\x, \\u or \\U escape with too few hexadecimal digits");
      code = code << 4 | static_cast<char32_t>(letter ? (c | 0x20) - 'a' + 10 : c - '0');
    }
    if (code > 0x10FFFF || (code >= 0xD800 && code <= 0xDFFF))
      return Fail("an escape that is no Unicode character");
    AppendChar(code, text);
    return Ok{};
  }

  std::string owned_;
  std::string_view source_;
  std::vector<Token> tokens_;
  size_t at_ = 0;
  bool line_starting_ = true;
  size_t counted_ = 0;
  size_t line_start_ = 0;
  uint32_t line_ = 1;
};

}  // namespace

Error SyntaxError(const Token& token, std::string_view message) {
  return MakeError(Code::kBadData, "chat template: line %u, column %u: %s", token.line,
                   token.column, std::string(message).c_str());
}

Result<std::vector<Token>> Tokenize(std::string_view source) { return Lexer(source).Run(); }

}  // namespace edgewise::jinja
