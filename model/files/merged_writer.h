// A whole model as Hugging Face stores it, in one file or in shards with an index (shards.h). Shards are planned first;
// then the bytes stream through, one file open at a time.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "model/files/shards.h"

namespace drover {

class MergedWriter {
 public:
  // Tensors go to shards in the order given; a tensor larger than the limit has a shard of its own. `directory` exists.
  MergedWriter(fs::path directory, const std::vector<TensorSpec>& tensors, int64_t max_shard_bytes = 5'000'000'000);

  const std::vector<TensorSpec>& order() const { return order_; }  // the order in which bytes must come
  const std::vector<std::string>& files() const { return files_; }
  void write(const std::string& name, const void* data, int64_t bytes);  // in pieces or whole
  void commit();  // the last shard, and the index where there are several

 private:
  void open_shard_of(const std::string& name);

  fs::path directory_;
  std::vector<Shard> shards_;
  std::vector<std::string> files_;
  std::vector<TensorSpec> order_;
  size_t shard_ = 0;
  std::unique_ptr<SafetensorsWriter> writer_;
};

}  // namespace drover
