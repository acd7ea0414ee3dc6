// The rows of a merged model's weights: W + scale·B·A in fp32 where the adapter names a linear, else W. What was merged
// is compared number by number with sums in fp64.
#pragma once
#include <functional>
#include <vector>

#include "kernels/backend.h"
#include "model/files/adapter_config.h"
#include "trainer/export/merge.h"

namespace drover {

// `values` rounded to the type (f32, f16, bf16), in its bytes; and as the fp32 numbers that a reader gets.
std::vector<std::byte> rounded(StoredType type, std::vector<float>& values);

class MergedRows {
 public:
  MergedRows(const AdapterSource& adapter, BaseWeights& base, Backend& backend)
      : adapter_(adapter), matcher_(adapter.config), base_(base), backend_(backend) {}

  // Rows [first, first + n) in fp32; leaves in `values` what they are once stored.
  using Store = std::function<void(int64_t first, std::vector<float>& values)>;

  // A tensor of the merged model, `rows_at_once` after each other. `rounding`: the type whose rounding `store` leaves
  // in the values. bad_data where the base is not F32, F16 or BF16 or a sum is more than `rounding` holds; corruption.
  void each(const std::string& name, StoredType rounding, int64_t rows_at_once, const Store& store);

 private:
  const AdapterSource& adapter_;
  AdapterMatcher matcher_;
  BaseWeights& base_;
  Backend& backend_;
};

}  // namespace drover
