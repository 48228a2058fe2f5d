#include "pipeline/keep_scales.h"

namespace edgewise {

Status KeepScales(const train::BlockScales& scales, std::span<const float> learned,
                  FunctionRef<size_t(const std::string& name)> index_of, TensorJournal* journal) {
  for (const train::BlockScales::ScaledTensor& tensor : scales.tensors()) {
    const size_t index = index_of(tensor.parameter.name);
    if (journal->Holds(index)) continue;
    EW_TRY(journal->Begin(index));
    EW_TRY(journal->Write(scales.Blocks(tensor, learned)));
    EW_TRY(journal->End(EncodeError()));
  }
  return Ok{};
}

}  // namespace edgewise
