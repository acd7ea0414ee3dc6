// The rows of a merged model's weights: W + scale·B·A in fp32 where the adapter names a linear, else W. What was merged
// is compared number by number with sums in fp64.
#pragma once
#include <functional>
#include <optional>
#include <vector>

#include "kernels/backend.h"
#include "model/files/adapter_config.h"
#include "trainer/export/merge.h"
#include "trainer/export/trained_base.h"

namespace drover {

// `values` rounded to the type (f32, f16, bf16), in its bytes; and as the fp32 numbers that a reader gets.
std::vector<std::byte> rounded(StoredType type, std::vector<float>& values);

// One tensor of the merged model. Its rows are read piece by piece; what is in memory is the last piece.
class MergedTensor {
 public:
  // Reads the adapter's factors. Everything outlives it.
  MergedTensor(std::string name, const AdapterSource& adapter, const AdapterMatcher& matcher, TrainedBase& base,
               Backend& backend);

  int64_t rows() const { return rows_; }
  int64_t cols() const { return cols_; }
  bool updated() const { return scale_.has_value(); }  // whether the adapter names it
  void read(int64_t row, int64_t rows);

  // Of the last piece. Without an update `base` and `update` are empty.
  const std::vector<float>& base() const { return base_rows_; }  // W
  const std::vector<float>& update() const { return update_; }   // scale·B·A
  std::vector<float>& sum() { return sum_; }

  // `merged`: what a reader gets of the last piece's sum, which the type rounds. Some numbers of it are computed by
  // themselves: every row at a few columns, others from row to row. bad_data where a sum is more than the type holds,
  // corruption where a number is none of its roundings.
  void check(StoredType type, const std::vector<float>& merged) const;

 private:
  void check_number(StoredType type, int64_t row, int64_t col, double merged) const;

  std::string name_;
  TrainedBase& base_;
  Backend& backend_;
  int64_t rows_ = 0, cols_ = 0;
  std::optional<double> scale_;
  AdapterMatrix a_, b_;
  int64_t first_ = 0;
  std::vector<float> base_rows_, update_, sum_;
};

class MergedRows {
 public:
  // Everything outlives it. `as`: what the base's plain numbers were made into where the adapter was trained.
  MergedRows(const AdapterSource& adapter, BaseWeights& base, Backend& backend, WeightsAs as = WeightsAs::as_is)
      : adapter_(adapter), matcher_(adapter.config), base_(base, as), backend_(backend) {}

  // bad_data where the base is not F32, F16 or BF16.
  MergedTensor tensor(const std::string& name);

  // Rows [first, first + n) in fp32; leaves in `values` what they are once stored.
  using Store = std::function<void(int64_t first, std::vector<float>& values)>;
  // A piece as it was stored: `merged` are the values that `store` left.
  using Seen = std::function<void(const MergedTensor& piece, const std::vector<float>& merged)>;

  // A tensor of the merged model, `rows_at_once` after each other. `rounding`: the type whose rounding `store` leaves
  // in the values. Errors as MergedTensor has them.
  void each(const std::string& name, StoredType rounding, int64_t rows_at_once, const Store& store,
            const Seen& seen = nullptr);

 private:
  const AdapterSource& adapter_;
  AdapterMatcher matcher_;
  TrainedBase base_;
  Backend& backend_;
};

// How many rows of so many columns make a piece: at most 16 MiB of fp32 where one row does.
int64_t rows_of_a_piece(int64_t cols);

}  // namespace drover
