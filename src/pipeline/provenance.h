// Provenance: the metadata keys that say what a file was made from, and how.
//   edgewise.version        of the program
//   edgewise.recipe         JSON: what decides the output, and nothing else
//   edgewise.source.sha256  } of the files that it was made from (source_hash.h)
//   edgewise.source.files   }
//   edgewise.history        the same of the steps before, one JSON each
#pragma once

#include "base/json.h"
#include "formats/metadata.h"
#include "pipeline/source_hash.h"

namespace edgewise {

// Appends the provenance that `metadata` carries so far to the history, so that a chain of steps
// stays readable.
void PushHistory(Metadata* metadata);

// Sets version, recipe and source. The keys take the same bytes for any digest.
void SetProvenance(const Json& recipe, const SourceHash& source, Metadata* metadata);

}  // namespace edgewise
