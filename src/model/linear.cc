#include <vector>

#include "base/round_up.h"
#include "model/forward.h"

namespace edgewise {
namespace {

constexpr size_t kRowTile = 32;    // rows per piece are a multiple, so kernels see whole tiles
constexpr size_t kTokenTile = 32;  // the same for tokens
constexpr size_t kPiecesPerThread = 6;

size_t Pieces(size_t count, size_t size) { return (count + size - 1) / size; }

// A job cut into pieces of at most `rows` weight rows and `tokens` activation rows.
struct Plan {
  size_t rows, tokens;
  size_t row_pieces, token_pieces;
  size_t total() const { return row_pieces * token_pieces; }
};

Plan MakePlan(const LinearJob& job, size_t rows_of_all, size_t pieces_wanted) {
  Plan plan;
  const size_t rows = job.linear->rows;
  plan.rows = std::max(RoundUp(rows_of_all / pieces_wanted, kRowTile), kRowTile);
  plan.row_pieces = Pieces(rows, plan.rows);
  plan.tokens = std::max<size_t>(job.n, 1);
  if (rows_of_all < pieces_wanted * kRowTile && job.n > kTokenTile) {
    const size_t cuts = std::max<size_t>(1, pieces_wanted / Pieces(rows_of_all, kRowTile));
    plan.tokens = std::max(RoundUp(job.n / cuts, kTokenTile), kTokenTile);
  }
  plan.token_pieces = Pieces(job.n, plan.tokens);
  return plan;
}

void RunPiece(const LinearJob& job, const Plan& plan, size_t piece, const Activations& input) {
  const Linear& linear = *job.linear;
  const size_t row = piece / plan.token_pieces * plan.rows;
  const size_t token = piece % plan.token_pieces * plan.tokens;
  kernels::LinearArgs args;
  args.w = linear.data + row * linear.row_bytes;
  args.w_stride = linear.row_bytes;
  args.rows = std::min(plan.rows, linear.rows - row);
  args.columns = linear.columns;
  args.x = input.Row(linear.kernel.act, job.first + token);
  args.x_stride = input.Stride(linear.kernel.act);
  args.n = std::min(plan.tokens, job.n - token);
  args.y = job.y + token * job.y_stride + row;
  args.y_stride = job.y_stride;
  linear.kernel.run(args);
}

}  // namespace

Status FloatRows::Resize(size_t rows, size_t columns) {
  EW_TRY(memory_, Tensor::Allocate(DType::kF32, Shape{rows, columns}));
  data_ = reinterpret_cast<float*>(memory_.mutable_data());
  columns_ = columns;
  return Ok{};
}

Status Activations::Resize(size_t rows, size_t max_columns) {
  for (size_t i = 0; i < kFormats; ++i) {
    const auto format = static_cast<kernels::ActFormat>(i);
    // A row of another width than the widest may not be a whole number of blocks; none is longer.
    const size_t columns =
        format == kernels::ActFormat::kF32 ? max_columns : RoundUp(max_columns, 256);
    const Shape shape{rows, kernels::ActRowBytes(format, columns)};
    EW_TRY(memory_[i], Tensor::Allocate(DType::kI8, shape));
  }
  return Ok{};
}

const std::byte* Activations::Row(kernels::ActFormat format, size_t i) const {
  return memory_[static_cast<size_t>(format)].view().data + i * Stride(format);
}

std::byte* Activations::Row(kernels::ActFormat format, size_t i) {
  return memory_[static_cast<size_t>(format)].mutable_data() + i * Stride(format);
}

void Activations::Finish(size_t i, std::span<const Linear* const> users) {
  for (const Linear* user : users) {
    if (user->kernel.act != kernels::ActFormat::kQ8) continue;
    kernels::Active().quantize_q8(floats(i), Row(kernels::ActFormat::kQ8, i), columns_);
    return;
  }
}

void RunLinears(std::span<const LinearJob> jobs, const Activations& input, ThreadPool* pool) {
  size_t rows = 0, work = 0;
  for (const LinearJob& job : jobs) {
    rows += job.linear->rows;
    work += job.linear->rows * job.linear->columns * job.n;
  }
  if (pool->size() == 1 || work < kSerialWork) {
    for (const LinearJob& job : jobs) {
      if (job.n > 0) RunPiece(job, {job.linear->rows, job.n, 1, 1}, 0, input);
    }
    return;
  }
  const size_t wanted = static_cast<size_t>(pool->size()) * kPiecesPerThread;
  std::vector<Plan> plans;
  size_t total = 0;
  for (const LinearJob& job : jobs) {
    plans.push_back(MakePlan(job, rows, wanted));
    total += plans.back().total();
  }
  pool->ParallelFor(total, 1, [&](size_t begin, size_t end, int) {
    for (size_t piece = begin; piece < end; ++piece) {
      size_t rest = piece, which = 0;
      while (rest >= plans[which].total()) rest -= plans[which++].total();
      RunPiece(jobs[which], plans[which], rest, input);
    }
  });
}

}  // namespace edgewise
