// Reader of SentencePiece models: the part of protobuf that sentencepiece_model.proto needs,
// bounded.
#include <cstring>
#include <optional>

#include "base/bytes.h"
#include "base/strings.h"
#include "text/tokenizer_files.h"
#include "text/tokenizer_kinds.h"

namespace edgewise {
namespace {

// One field of a message: varints and fixed numbers in `number`, the rest in `bytes`.
struct Field {
  uint32_t id = 0;
  uint32_t wire_type = 0;
  uint64_t number = 0;
  std::string_view bytes;
};

constexpr uint32_t kVarint = 0, kFixed64 = 1, kBytes = 2, kFixed32 = 5;

Result<uint64_t> ReadVarint(ByteReader* reader) {
  uint64_t value = 0;
  for (int shift = 0; shift < 64; shift += 7) {
    EW_TRY(const uint8_t byte, reader->Read<uint8_t>());
    value |= static_cast<uint64_t>(byte & 0x7F) << shift;
    if (byte < 0x80) return value;
  }
  return MakeError(Code::kBadData, "at byte %llu: a varint is longer than 10 bytes",
                   static_cast<unsigned long long>(reader->offset()));
}

Result<Field> ReadField(ByteReader* reader) {
  EW_TRY(const uint64_t key, ReadVarint(reader));
  Field field;
  field.id = static_cast<uint32_t>(key >> 3);
  field.wire_type = static_cast<uint32_t>(key & 7);
  switch (field.wire_type) {
    case kVarint: {
      EW_TRY(field.number, ReadVarint(reader));
      return field;
    }
    case kFixed64: {
      EW_TRY(field.number, reader->Read<uint64_t>());
      return field;
    }
    case kFixed32: {
      EW_TRY(field.number, reader->Read<uint32_t>());
      return field;
    }
    case kBytes: {
      EW_TRY(const uint64_t length, ReadVarint(reader));
      EW_TRY(field.bytes, reader->ReadText(length));
      return field;
    }
    default:
      return MakeError(Code::kBadData, "at byte %llu: unknown protobuf wire type %u",
                       static_cast<unsigned long long>(reader->offset()), field.wire_type);
  }
}

// Calls visit(field) for every field of a message until one fails.
template <class Visit>
Status ForEachField(std::string_view message, Visit visit) {
  ByteReader reader(std::as_bytes(std::span(message.data(), message.size())));
  while (reader.remaining() > 0) {
    EW_TRY(const Field field, ReadField(&reader));
    EW_TRY(visit(field));
  }
  return Ok{};
}

struct Spec {
  uint64_t model_type = 1;  // 1 Unigram, 2 BPE
  int32_t unk = 0, bos = 1, eos = 2, pad = -1;
  bool whitespace_as_suffix = false;
  bool add_dummy_prefix = true;
  bool remove_extra_whitespaces = true;
  bool escape_whitespaces = true;
  std::string_view charsmap;
};

Status ReadPiece(std::string_view message, Vocab* vocab) {
  std::string_view text;
  float score = 0;
  uint64_t type = static_cast<uint64_t>(TokenType::kNormal);
  EW_TRY(ForEachField(message, [&](const Field& field) -> Status {
    if (field.id == 1 && field.wire_type == kBytes) text = field.bytes;
    if (field.id == 2 && field.wire_type == kFixed32) {
      const auto bits = static_cast<uint32_t>(field.number);
      std::memcpy(&score, &bits, 4);
    }
    if (field.id == 3 && field.wire_type == kVarint) type = field.number;
    return Ok{};
  }));
  const size_t number = vocab->tokens.size();
  if (type < static_cast<uint64_t>(TokenType::kNormal) ||
      type > static_cast<uint64_t>(TokenType::kByte)) {
    return MakeError(Code::kBadData, "piece %zu has the unknown type %llu", number,
                     static_cast<unsigned long long>(type));
  }
  vocab->types.push_back(static_cast<TokenType>(type));
  vocab->scores.push_back(score);
  // User-defined symbols are found in the text as it is written, with plain spaces.
  vocab->tokens.push_back(vocab->types.back() == TokenType::kUserDefined ? UnescapeSpaces(text)
                                                                         : std::string(text));
  return Ok{};
}

Status ReadTrainerSpec(std::string_view message, Spec* spec) {
  return ForEachField(message, [spec](const Field& field) -> Status {
    if (field.wire_type != kVarint) return Ok{};
    const auto id = static_cast<int32_t>(field.number);
    switch (field.id) {
      case 3:
        spec->model_type = field.number;
        break;
      case 24:
        spec->whitespace_as_suffix = field.number != 0;
        break;
      case 40:
        spec->unk = id;
        break;
      case 41:
        spec->bos = id;
        break;
      case 42:
        spec->eos = id;
        break;
      case 43:
        spec->pad = id;
        break;
      default:
        break;
    }
    return Ok{};
  });
}

Status ReadNormalizerSpec(std::string_view message, Spec* spec) {
  return ForEachField(message, [spec](const Field& field) -> Status {
    const bool flag = field.number != 0;
    switch (field.id) {
      case 2:
        spec->charsmap = field.bytes;
        break;
      case 3:
        spec->add_dummy_prefix = flag;
        break;
      case 4:
        spec->remove_extra_whitespaces = flag;
        break;
      case 5:
        spec->escape_whitespaces = flag;
        break;
      default:
        break;
    }
    return Ok{};
  });
}

Status ApplySpec(const Spec& spec, Vocab* vocab) {
  if (spec.model_type != 1 && spec.model_type != 2) {
    return MakeError(Code::kUnsupported,
                     "model type %llu: only 1 (Unigram) and 2 (BPE) are supported",
                     static_cast<unsigned long long>(spec.model_type));
  }
  if (spec.whitespace_as_suffix || !spec.escape_whitespaces) {
    return MakeError(Code::kUnsupported,
                     "spaces as a suffix, or not written as U+2581, are not supported");
  }
  vocab->kind = spec.model_type == 1 ? TokenizerKind::kUnigram : TokenizerKind::kSpm;
  const bool unigram = vocab->kind == TokenizerKind::kUnigram;
  if (!unigram && !spec.charsmap.empty()) {
    return MakeError(Code::kUnsupported, "a BPE model with a normalization table is not supported");
  }
  vocab->precompiled_charsmap = spec.charsmap;
  vocab->add_space_prefix = spec.add_dummy_prefix;
  // BPE models carry the flag too, but no implementation of the models that use them honours it.
  vocab->remove_extra_whitespaces = unigram && spec.remove_extra_whitespaces;
  const std::pair<int32_t, std::optional<int32_t>*> ids[] = {{spec.unk, &vocab->unk},
                                                             {spec.bos, &vocab->bos},
                                                             {spec.eos, &vocab->eos},
                                                             {spec.pad, &vocab->pad}};
  for (const auto& [id, target] : ids) {
    if (id < 0) continue;
    if (static_cast<size_t>(id) >= vocab->tokens.size()) {
      return MakeError(Code::kBadData, "a special id is %d, but there are only %zu pieces", id,
                       vocab->tokens.size());
    }
    *target = id;
  }
  vocab->add_bos = !unigram && vocab->bos.has_value();
  vocab->add_eos = unigram && vocab->eos.has_value();
  vocab->eog = FindEndOfGeneration(*vocab);
  return Ok{};
}

}  // namespace

Result<Vocab> ParseSentencePieceModel(std::span<const std::byte> bytes) {
  Vocab vocab;
  Spec spec;
  const std::string_view model(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  auto status = ForEachField(model, [&](const Field& field) -> Status {
    if (field.wire_type != kBytes) return Ok{};
    if (field.id == 1) return ReadPiece(field.bytes, &vocab);
    if (field.id == 2) return ReadTrainerSpec(field.bytes, &spec);
    if (field.id == 3) return ReadNormalizerSpec(field.bytes, &spec);
    return Ok{};
  });
  if (status && vocab.tokens.empty()) {
    status = MakeError(Code::kBadData, "the file holds no pieces");
  }
  if (status) status = ApplySpec(spec, &vocab);
  if (!status) return std::move(status).error().In("SentencePiece model");
  return vocab;
}

}  // namespace edgewise
