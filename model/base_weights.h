// The frozen weights that a model computes with, each rank its slices only: those of a Hugging Face directory, or an
// adapter's in place of them. An adapter from elsewhere may hold weights of whole modules (modules_to_save; the
// embedding of a longer vocabulary) and low-rank factors of the embedding; these are not trained here, so they are
// added once, where the weight is read.
#pragma once
#include <optional>
#include <vector>

#include "model/files/model_directory.h"
#include "model/files/peft.h"
#include "model/weight_source.h"

namespace drover {

class BaseWeights : public WeightSource {
 public:
  explicit BaseWeights(ModelDirectory& directory);
  // bad_data where the adapter's weights and embedding factors do not fit the model.
  BaseWeights(ModelDirectory& directory, const AdapterFile& adapter);

  // The directory's, but with a head of its own where the adapter changes the embedding or the head alone, and with the
  // vocabulary of the adapter's embedding.
  const ModelConfig& config() const { return config_; }
  ModelDirectory& directory() { return *directory_; }
  void read_through(ModelDirectory& same) { directory_ = &same; }  // another that was opened at the same path
  bool changed(const std::string& name) const;  // whether a tensor of config() is another than the directory's
  // The type in which the directory stores the tensor, and its shape in it: of lm_head.weight those of the embedding
  // where it stores no head.
  StoredType dtype(const std::string& name);
  StoredType plain_dtype(const std::string& name);  // as ModelDirectory's
  std::vector<int64_t> shape(const std::string& name);
  // As ModelDirectory has them; nothing where the adapter has another tensor, or adds to it.
  std::optional<StoredScaling> scaling(const std::string& name);
  // Of a tensor that has a scaling.
  Fp8Slice read_fp8(const std::string& name, int64_t row, int64_t rows, int64_t col, int64_t cols);
  Nf4Slice read_nf4(const std::string& name, int64_t row, int64_t rows, int64_t col, int64_t cols);
  // As ModelDirectory::read; what an adapter of the embedding adds is summed in double and rounded once.
  void read(const std::string& name, int64_t row, int64_t rows, int64_t col, int64_t cols, DType to, void* out);
  void read(const ParamSpec& spec, int64_t row, int64_t col, Tensor to) override;
  std::optional<StoredScaling> scaling(const ParamSpec& spec) override { return scaling(spec.name); }
  Fp8Slice read_fp8(const ParamSpec& spec, Range rows, Range cols) override {
    return read_fp8(spec.name, rows.begin, rows.count, cols.begin, cols.count);
  }
  Nf4Slice read_nf4(const ParamSpec& spec, Range rows, Range cols) override {
    return read_nf4(spec.name, rows.begin, rows.count, cols.begin, cols.count);
  }

 private:
  void check_weights() const;
  std::string stored_as(const std::string& name) const;
  std::string source_of(const std::string& name) const;  // which tensor the directory, or the adapter, has of it

  ModelDirectory* directory_;
  std::optional<AdapterFile> adapter_;
  ModelConfig config_;
  bool saves_embedding_ = false;  // by modules_to_save: a tied head keeps the base's
  struct EmbeddingFactors {
    AdapterMatrix a, b;  // (r, V), (D, r)
    double scale = 0;
  };
  std::optional<EmbeddingFactors> factors_;
};

// The configuration of a model with an adapter.
ModelConfig adapted_config(const fs::path& model, const std::optional<fs::path>& adapter);

// Whether each weight that the adapter has in place of the base's is equal to it, so that the base can be used as it
// is: PEFT saves the embedding and the head with adapters of them, changed or not.
bool keeps_base(const AdapterFile& adapter, ModelDirectory& base);

}  // namespace drover
