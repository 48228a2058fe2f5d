// Communicator over MPI, whose own errors end all processes with its message.
#include <mpi.h>

#include <algorithm>
#include <cstdlib>
#include <exception>
#include <iterator>
#include <string_view>
#include <vector>

#include "base/strings.h"
#include "train/communicator.h"

namespace edgewise::train {
namespace {

constexpr size_t kPiece = size_t{1} << 22;  // values that are under way together
constexpr size_t kBroadcastBytes = size_t{1} << 30;
constexpr int kTag = 0;

bool joined = false;

// A process that exits without having left, on an exception for instance, would leave the others
// waiting.
void EndAllIfJoined() {
  if (joined) MPI_Abort(MPI_COMM_WORLD, EXIT_FAILURE);
}

class MpiCommunicator final : public Communicator {
 public:
  MpiCommunicator() {
    MPI_Comm_rank(MPI_COMM_WORLD, &rank_);
    MPI_Comm_size(MPI_COMM_WORLD, &size_);
  }
  ~MpiCommunicator() override {
    if (std::uncaught_exceptions() > 0) return;
    joined = false;
    MPI_Finalize();
  }

  int rank() const override { return rank_; }
  int size() const override { return size_; }

  void Collect(std::span<const float> values, int ranks,
               FunctionRef<void(size_t at, std::span<const float> piece)> take) override {
    const size_t longest = PartOf(values.size(), 0).count;
    buffer_.resize(std::min(kPiece, longest));
    for (size_t at = 0; at < longest; at += kPiece) {
      std::vector<MPI_Request> sent;
      for (int to = 0; rank_ < ranks && to < size_; ++to) {
        const auto piece = Piece(values, to, at);
        if (to == rank_ || piece.empty()) continue;
        MPI_Isend(piece.data(), static_cast<int>(piece.size()), MPI_FLOAT, to, kTag, MPI_COMM_WORLD,
                  &sent.emplace_back());
      }
      const auto own = Piece(values, rank_, at);
      for (int from = 0; from < ranks && !own.empty(); ++from) {
        if (from == rank_) {
          take(at, own);
          continue;
        }
        MPI_Recv(buffer_.data(), static_cast<int>(own.size()), MPI_FLOAT, from, kTag,
                 MPI_COMM_WORLD, MPI_STATUS_IGNORE);
        take(at, {buffer_.data(), own.size()});
      }
      MPI_Waitall(static_cast<int>(sent.size()), sent.data(), MPI_STATUSES_IGNORE);
    }
  }

  void Gather(std::span<const float> part, std::span<float> all) override {
    std::copy(part.begin(), part.end(),
              all.begin() + static_cast<std::ptrdiff_t>(PartOf(all.size(), rank_).first));
    for (int from = 0; from < size_; ++from) {
      const Part theirs = PartOf(all.size(), from);
      BroadcastFrom(from, std::as_writable_bytes(all.subspan(theirs.first, theirs.count)));
    }
  }

  void Sum(std::span<double> values) override {
    MPI_Allreduce(MPI_IN_PLACE, values.data(), static_cast<int>(values.size()), MPI_DOUBLE, MPI_SUM,
                  MPI_COMM_WORLD);
  }

  void Broadcast(std::span<std::byte> bytes) override { BroadcastFrom(0, bytes); }

  Status Agree(Status status) override {
    int failed = status ? size_ : rank_;
    MPI_Allreduce(MPI_IN_PLACE, &failed, 1, MPI_INT, MPI_MIN, MPI_COMM_WORLD);
    if (failed == size_) return Ok{};
    uint64_t about[2] = {};  // its code, the size of its message
    std::string message;
    if (failed == rank_) {
      message = status.error().message;
      about[0] = static_cast<uint64_t>(status.error().code);
      about[1] = message.size();
    }
    BroadcastFrom(failed, std::as_writable_bytes(std::span(about)));
    message.resize(about[1]);
    BroadcastFrom(failed, std::as_writable_bytes(std::span(message)));
    Error error{static_cast<Code>(about[0]), std::move(message)};
    return failed == 0 ? std::move(error) : std::move(error).In(Format("process %d", failed));
  }

 private:
  // Of `values`, what begins `at` values into the part of a rank.
  std::span<const float> Piece(std::span<const float> values, int rank, size_t at) const {
    const Part part = PartOf(values.size(), rank);
    if (at >= part.count) return {};
    return values.subspan(part.first + at, std::min(kPiece, part.count - at));
  }

  static void BroadcastFrom(int rank, std::span<std::byte> bytes) {
    for (size_t at = 0; at < bytes.size(); at += kBroadcastBytes) {
      const size_t count = std::min(kBroadcastBytes, bytes.size() - at);
      MPI_Bcast(bytes.data() + at, static_cast<int>(count), MPI_BYTE, rank, MPI_COMM_WORLD);
    }
  }

  int rank_ = 0, size_ = 1;
  std::vector<float> buffer_;  // a piece of another rank
};

bool HasLauncher() {
  constexpr const char* kNames[] = {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "PMIX_RANK"};
  return std::any_of(std::begin(kNames), std::end(kNames),
                     [](const char* name) { return std::getenv(name) != nullptr; });
}

}  // namespace

Result<std::unique_ptr<Communicator>> JoinProcesses() {
  if (!HasLauncher()) return std::make_unique<Communicator>();
  MPI_Init(nullptr, nullptr);
  joined = true;
  std::atexit(EndAllIfJoined);
  return std::unique_ptr<Communicator>(std::make_unique<MpiCommunicator>());
}

std::string MpiVersion() {
  char version[MPI_MAX_LIBRARY_VERSION_STRING] = {};
  int length = 0;
  MPI_Get_library_version(version, &length);
  const std::string_view whole(version, static_cast<size_t>(length));
  return std::string(whole.substr(0, whole.find(',')));  // what follows tells who built it
}

}  // namespace edgewise::train
