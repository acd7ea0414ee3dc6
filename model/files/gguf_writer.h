// A GGUF file (version 3): keys first, then the tensors' places, then their data, each aligned to 32 bytes. Small files
// only: everything is held until `finish`. Format: ggml's docs/gguf.md.
#pragma once
#include <string>
#include <vector>

#include "model/files/gguf.h"

namespace drover {

class GgufWriter {
 public:
  void text(const std::string& key, const std::string& value);
  void number(const std::string& key, float value);
  // `shape` as Hugging Face has it, rows first; fp32.
  void tensor(const std::string& name, const std::vector<int64_t>& shape, const std::vector<float>& values);

  std::string finish() const;  // the file's bytes

 private:
  void key(const std::string& name, uint32_t type, const std::string& bytes);
  std::string keys_, infos_, data_;
  uint64_t key_count_ = 0, tensor_count_ = 0;
};

}  // namespace drover
