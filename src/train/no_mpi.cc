// JoinProcesses of a program without MPI.
#include <cstdlib>

#include "base/strings.h"
#include "train/communicator.h"

namespace edgewise::train {

Result<std::unique_ptr<Communicator>> JoinProcesses() {
  for (const char* name : {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE"}) {  // Open MPI; MPICH and its kin
    const char* size = std::getenv(name);
    if (size == nullptr || std::atoi(size) <= 1) continue;
    return MakeError(Code::kUnsupported,
                     "started as one of %s processes, but this program knows one alone: start "
                     "edgewise-mpi (docs/training.md), or one process",
                     size);
  }
  return std::make_unique<Communicator>();
}

std::string MpiVersion() { return ""; }

}  // namespace edgewise::train
