// Adapters out of checkpoints, read back and checked before they count as written.
#pragma once
#include <functional>

#include "model/adapter.h"
#include "model/base_weights.h"
#include "model/files/peft.h"
#include "model/files/staged_directory.h"
#include "trainer/export/adapter_targets.h"
#include "trainer/run/checkpoint.h"

namespace drover {

// The checkpoint's adapter. bad_data where every B is zero: it would change nothing.
AdapterForm adapter_of(const Checkpoint& checkpoint);

// PEFT's adapter directory under a temporary name next to `out`: written and read back (same keys and values, finite;
// else corruption), with `more`. It appears as `out`, in place of an adapter that is there, when it is committed; until
// then more may be written into it. Without commit nothing stays. A README.md of `out` that somebody else wrote than
// model_card.h comes along.
class StagedAdapter {
 public:
  StagedAdapter(const AdapterForm& adapter, DType dtype, const fs::path& out, const MoreFiles& more = {});
  const fs::path& path() const { return staged_.path(); }
  bool has_page() const { return has_page_; }  // somebody else's README.md
  void commit() { staged_.commit(); }

 private:
  StagedDirectory staged_;
  bool has_page_ = false;
};

// The same at once.
void export_adapter(const AdapterForm& adapter, DType dtype, const fs::path& out, const MoreFiles& more = {});

// bad_data naming the factor that is missing, surplus or of another shape than the model's linears and embedding ask
// for.
void check_fits(const AdapterFile& file, const ModelConfig& model);

// A slice's values out of its whole factor.
void copy_slice(const AdapterMatrix& whole, const FactorSlice& slice, float* values);

// Fills an adapter's parameters (and compute copies) from a PEFT directory; bad_data naming the tensor that is missing,
// surplus or of another shape.
void load_adapter(const fs::path& directory, const ModelConfig& model, AdapterSet& adapter);

}  // namespace drover
