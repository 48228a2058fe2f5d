#include "compress/prune/assignment.h"

#include <algorithm>
#include <limits>

namespace edgewise {
namespace {

// Rows are assigned one after the other. Costs are -scores; reduced costs cost - u - v stay >= 0,
// and 0 where assigned.
class Assignment {
 public:
  Assignment(const std::vector<double>& scores, size_t n)
      : scores_(scores),
        n_(n),
        u_(n),
        v_(n, std::numeric_limits<double>::infinity()),
        row_of_(n, n) {
    // Each column starts with a row at no cost: paths stay short.
    for (size_t i = 0; i < n * n; ++i) v_[i % n] = std::min(v_[i % n], -scores[i]);
  }
  void Add(size_t row);
  std::vector<size_t> Columns() const {
    std::vector<size_t> columns(n_);
    for (size_t j = 0; j < n_; ++j) columns[row_of_[j]] = j;
    return columns;
  }

 private:
  const std::vector<double>& scores_;
  size_t n_;
  std::vector<double> u_, v_;   // potentials of rows and columns
  std::vector<size_t> row_of_;  // of a column; n: none yet
};

// Dijkstra from `row` to the nearest free column, then shifts the assignments along the path.
void Assignment::Add(size_t row) {
  std::vector<double> distance(n_, std::numeric_limits<double>::infinity());
  std::vector<size_t> previous(n_, n_);  // column before on the path; n: `row` itself
  std::vector<size_t> done;
  std::vector<char> is_done(n_, 0);
  size_t at = row, from = n_, nearest = n_;
  double reached = 0;
  for (;;) {
    nearest = n_;
    const double* scores = scores_.data() + at * n_;
    for (size_t j = 0; j < n_; ++j) {
      if (is_done[j] != 0) continue;
      const double through = reached - scores[j] - u_[at] - v_[j];
      if (through < distance[j]) {
        distance[j] = through;
        previous[j] = from;
      }
      if (nearest == n_ || distance[j] < distance[nearest]) nearest = j;
    }
    reached = distance[nearest];
    if (row_of_[nearest] == n_) break;
    is_done[nearest] = 1;
    done.push_back(nearest);
    from = nearest;
    at = row_of_[nearest];
  }
  u_[row] += reached;
  for (const size_t j : done) {
    u_[row_of_[j]] += reached - distance[j];
    v_[j] -= reached - distance[j];
  }
  for (size_t j = nearest; j != n_; j = previous[j]) {
    row_of_[j] = previous[j] == n_ ? row : row_of_[previous[j]];
  }
}

}  // namespace

std::vector<size_t> MaximalAssignment(const std::vector<double>& scores, size_t n) {
  Assignment assignment(scores, n);
  for (size_t row = 0; row < n; ++row) assignment.Add(row);
  return assignment.Columns();
}

}  // namespace edgewise
