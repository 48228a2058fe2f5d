// Base64 (RFC 4648), as tokenizer files carry bytes in text.
#pragma once

#include <string>
#include <string_view>

#include "base/result.h"

namespace edgewise {

// Returns the bytes of padded base64. Errors: kBadData.
Result<std::string> DecodeBase64(std::string_view text);

}  // namespace edgewise
