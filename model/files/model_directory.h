// A Hugging Face model directory: config.json, and weights in one safetensors file or in shards with an index. Read in
// place, never copied, and never mapped: it takes no address space. A shard is opened when one of its tensors is first
// asked for: a rank touches only the files and the byte ranges of its own slices. Weights may be quantised
// (quantised_tensor.h says how): by name, shape and value they are what they were made from. Not for several threads at
// once.
#pragma once
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "model/config.h"
#include "model/files/quantised_tensor.h"
#include "model/files/safetensors.h"

namespace drover {

struct ExpectedTensor {
  std::string name;
  int64_t rows = 0, cols = 1;  // a vector has one column; stored as [rows]
};

// missing_input for a path that is no directory; for what looks like a hub's name, how to download it.
[[noreturn]] void fail_no_model(const fs::path& path);

class ModelDirectory {
 public:
  // Reads config.json, and the index or the single file's header. missing_input: nothing there, or a shard is missing;
  // bad_data: pickles, GGUF, a bad index, a quantisation that is not read.
  explicit ModelDirectory(const fs::path& path);

  const fs::path& path() const { return path_; }
  const ModelConfig& config() const { return config_; }
  bool is_quantised() const { return quantisation_.has_value(); }
  std::vector<std::string> names() const;
  std::vector<std::string> files() const;  // the weight files' names, sorted
  bool has(const std::string& name) const { return file_of_.count(name) != 0; }
  // These open the tensor's file; bad_data when the directory has no such tensor, or its codes and scales do not fit.
  StoredType dtype(const std::string& name);  // of a quantised weight: of its codes
  std::vector<int64_t> shape(const std::string& name);
  std::optional<StoredScaling> scaling(const std::string& name);  // nothing where it is stored in plain numbers
  // The type in which a file without quantisation holds the tensor: the stored one, or what its values are rounded to,
  // or config.json's.
  StoredType plain_dtype(const std::string& name);

  // bad_data naming every expected tensor that is missing. Returns those that nobody expects (`…rotary_emb.inv_freq` is
  // passed over, and what belongs to quantised weights). Opens no shard.
  std::vector<std::string> check_names(std::span<const ExpectedTensor> whole_model) const;
  // bad_data naming every tensor whose shape or dtype is not as expected, with the reason where keys and values are
  // stored twice; and for a head that is tied to the embeddings, if these are expected, and stored with other values.
  // Opens their files.
  void check_shapes(std::span<const ExpectedTensor> mine);

  // Rows [row_begin, row_begin + rows) × columns [col_begin, col_begin + cols) of a matrix, or of a vector (one
  // column), as bf16 or f32 into contiguous `out`. Of a quantised weight:
  // its values (kernels/base/quantised.h), which bf16 rounds once more.
  void read(const std::string& name, int64_t row_begin, int64_t rows, int64_t col_begin, int64_t cols, DType to,
            void* out);
  // The same range of a quantised weight as it is stored; bad_data where a code that is read is no number. NF4's
  // columns begin and end between blocks of 64.
  Fp8Slice read_fp8(const std::string& name, int64_t row, int64_t rows, int64_t col, int64_t cols);
  Nf4Slice read_nf4(const std::string& name, int64_t row, int64_t rows, int64_t col, int64_t cols);

  int64_t bytes_read() const { return bytes_read_; }  // stored bytes of all ranges read so far
  int64_t files_opened() const { return static_cast<int64_t>(open_.size()); }
  // For each file that holds one of `tensors`: SHA-256 over its size, its header and 16 blocks of 4 KiB spread
  // evenly over each of its tensors (small ones whole): a single weight that was changed elsewhere is not noticed.
  // Opens those files.
  std::map<std::string, std::string> fingerprints(std::span<const std::string> tensors);

 private:
  void check_tied_head();
  void find_weights();
  void read_index(const fs::path& index);
  const SafetensorsFile& file(const std::string& name);
  void check_doubles(const std::string& name);
  const StoredTensor& tensor(const std::string& name);
  const QuantisedTensor* quantised(const std::string& name);
  void read_quantised(const std::string& name, int64_t row, int64_t rows, int64_t col, int64_t cols, DType to,
                      void* out);
  std::string wrong_type(const std::string& name);

  fs::path path_;
  ModelConfig config_;
  std::map<std::string, std::string> file_of_;  // tensor → file
  std::map<std::string, std::unique_ptr<SafetensorsFile>> open_;
  std::optional<QuantisationConfig> quantisation_;
  std::map<std::string, std::optional<QuantisedTensor>> quantised_;  // of those asked for; nothing: plain numbers
  std::vector<float> absmax_levels_;                                 // of all of NF4's weights, once one was asked for
  int64_t bytes_read_ = 0;
};

}  // namespace drover
