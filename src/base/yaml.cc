#include "base/yaml.h"

#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/exceptions.h>
#include <yaml-cpp/parser.h>

#include <sstream>
#include <unordered_set>
#include <utility>

#include "base/strings.h"

namespace edgewise {
namespace {

Error ErrorAt(const YAML::Mark& mark, const std::string& message) {
  return MakeError(Code::kBadData, "line %d, column %d: %s", mark.line + 1, mark.column + 1,
                   message.c_str());
}

bool IsDecimal(std::string_view text) {
  return !text.empty() && text.find_first_not_of("0123456789+-.eE") == text.npos &&
         text.find_first_of("0123456789") != text.npos;
}

Json FromPlainScalar(const std::string& text) {
  if (text == "null" || text == "Null" || text == "NULL" || text == "~") return {};
  if (text == "true" || text == "True" || text == "TRUE") return true;
  if (text == "false" || text == "False" || text == "FALSE") return false;
  if (!IsDecimal(text)) return text;
  if (const auto integer = ParseInt(text)) return *integer;
  if (const auto number = ParseDouble(text)) return *number;
  return text;
}

// Builds a Json from yaml-cpp's events. Throws Error to stop the parser.
class Builder final : public YAML::EventHandler {
 public:
  explicit Builder(std::vector<YamlMark>* marks) : marks_(*marks) {}
  Json Take() && { return std::move(root_); }

  void OnDocumentStart(const YAML::Mark&) override {}
  void OnDocumentEnd() override {}
  void OnNull(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    Refuse(mark, "", anchor);
    Place(mark);
    Add(mark, Json());
  }
  void OnAlias(const YAML::Mark& mark, YAML::anchor_t) override {
    throw ErrorAt(mark, "aliases (*name) are not read here; repeat the value");
  }
  void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                const std::string& value) override {
    Refuse(mark, tag, anchor);
    if (AtKey()) {
      Key(mark, value);
      return;
    }
    Place(mark);
    Add(mark, tag == kPlain ? FromPlainScalar(value) : Json(value));
  }
  void OnSequenceStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                       YAML::EmitterStyle::value) override {
    Open(mark, tag, anchor, Json(JsonArray()));
  }
  void OnSequenceEnd() override { Close(); }
  void OnMapStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                  YAML::EmitterStyle::value) override {
    Open(mark, tag, anchor, Json(JsonObject()));
  }
  void OnMapEnd() override { Close(); }

 private:
  // What yaml-cpp gives as the tag of an untagged plain or quoted scalar.
  static constexpr const char* kPlain = "?";
  static constexpr const char* kQuoted = "!";

  struct Level {
    Json container;
    bool has_key = false;
    std::string key;  // of the member being read
    YAML::Mark key_mark;
    std::unordered_set<std::string> keys;  // seen so far
  };

  static void Refuse(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor) {
    if (anchor != YAML::NullAnchor) {
      throw ErrorAt(mark, "anchors (&name) are not read here; repeat the value");
    }
    if (!tag.empty() && tag != kPlain && tag != kQuoted) {
      throw ErrorAt(mark, "tags (" + Quote(tag) + ") are not read here; quote a text");
    }
  }
  bool AtKey() const {
    return !stack_.empty() && stack_.back().container.is_object() && !stack_.back().has_key;
  }
  void Key(const YAML::Mark& mark, const std::string& key) {
    Level& level = stack_.back();
    if (!level.keys.insert(key).second) {
      throw ErrorAt(mark, "the key " + Quote(key) + " appears twice");
    }
    level.key = key;
    level.key_mark = mark;
    level.has_key = true;
  }
  // Records where the value that begins now stands.
  void Place(const YAML::Mark& mark) {
    const bool member = !stack_.empty() && stack_.back().has_key;
    const YAML::Mark& at = member ? stack_.back().key_mark : mark;
    marks_.push_back({at.line + 1, at.column + 1});
  }
  void Open(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor, Json container) {
    Refuse(mark, tag, anchor);
    if (AtKey()) throw ErrorAt(mark, "a key must be a text");
    if (static_cast<int>(stack_.size()) >= kMaxYamlDepth) {
      throw ErrorAt(mark, Format("nested deeper than %d levels", kMaxYamlDepth));
    }
    Place(mark);
    stack_.push_back({std::move(container), false, {}, {}, {}});
  }
  void Close() {
    Json done = std::move(stack_.back().container);
    stack_.pop_back();
    Add({}, std::move(done));
  }
  void Add(const YAML::Mark& mark, Json value) {
    if (stack_.empty()) {
      root_ = std::move(value);
    } else if (JsonObject* object = stack_.back().container.AsObject()) {
      if (AtKey()) throw ErrorAt(mark, "a key must be a text");
      object->emplace_back(std::move(stack_.back().key), std::move(value));
      stack_.back().has_key = false;
    } else {
      stack_.back().container.AsArray()->push_back(std::move(value));
    }
  }

  std::vector<YamlMark>& marks_;
  std::vector<Level> stack_;
  Json root_;
};

// Counts nodes from `from` on, each before its members, until it meets `wanted`.
bool CountUntil(const Json& from, const Json& wanted, size_t* count) {
  if (&from == &wanted) return true;
  ++*count;
  if (const JsonArray* array = from.AsArray()) {
    for (const Json& item : *array) {
      if (CountUntil(item, wanted, count)) return true;
    }
  } else if (const JsonObject* object = from.AsObject()) {
    for (const auto& [key, value] : *object) {
      if (CountUntil(value, wanted, count)) return true;
    }
  }
  return false;
}

}  // namespace

YamlMark YamlDocument::MarkOf(const Json& node) const {
  size_t index = 0;
  EW_CHECK(CountUntil(root_, node, &index));
  return index < marks_.size() ? marks_[index] : YamlMark{};  // an empty text has no marks
}

Result<YamlDocument> ParseYaml(std::string_view text) {
  if (text.size() > kMaxYamlBytes) {
    return MakeError(Code::kBadData, "YAML text of %zu bytes; at most %zu are read here",
                     text.size(), kMaxYamlBytes);
  }
  if (!IsUtf8(text)) return MakeError(Code::kBadData, "the text is not valid UTF-8");
  YamlDocument document;
  try {
    std::istringstream stream{std::string(text)};
    YAML::Parser parser(stream);
    Builder builder(&document.marks_);
    if (parser.HandleNextDocument(builder)) {
      document.root_ = std::move(builder).Take();
      std::vector<YamlMark> more;
      Builder second(&more);
      if (parser.HandleNextDocument(second)) {
        return MakeError(Code::kBadData, "more than one document (---); one is read here");
      }
    }
  } catch (Error& error) {
    return std::move(error);
  } catch (const YAML::Exception& error) {
    return ErrorAt(error.mark, error.msg);
  } catch (const std::bad_alloc&) {
    return MakeError(Code::kOutOfMemory, "not enough memory for a YAML text of %zu bytes",
                     text.size());
  } catch (const std::exception& error) {
    return MakeError(Code::kBadData, "invalid YAML: %s", error.what());
  }
  return document;
}

}  // namespace edgewise
