// Writing a GGUF file (version 3) as a stream: keys and the tensors' places are declared first, then their bytes come
// tensor by tensor, each aligned to 32 bytes. Format: ggml's docs/gguf.md.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "kernels/base/file.h"
#include "model/files/gguf.h"

namespace drover {

class GgufWriter {
 public:
  explicit GgufWriter(const fs::path& path) : file_(path) {}

  void text(const std::string& key, const std::string& value);
  void number(const std::string& key, float value);
  void integer(const std::string& key, int64_t value);  // as uint32; internal where it does not fit
  void flag(const std::string& key, bool value);
  void texts(const std::string& key, const std::vector<std::string>& values);
  void integers(const std::string& key, const std::vector<int32_t>& values);

  // `shape` as Hugging Face has it, rows first; rows are whole blocks of the type.
  void tensor(const std::string& name, GgufType type, const std::vector<int64_t>& shape);
  int64_t bytes() const;                  // of the whole file, as it is declared
  std::string header() const;             // its first bytes, as it is declared
  static int64_t aligned(int64_t bytes);  // what a tensor of so many takes

  // The next bytes of `name`; a tensor may come in pieces. internal when out of the declared order or too many.
  void write(const std::string& name, const void* data, int64_t bytes);
  void commit();  // internal when bytes are missing; then as AtomicFile

 private:
  struct Place {
    std::string name;
    int64_t bytes = 0;
  };
  void key(const std::string& name, uint32_t type, const std::string& bytes);

  AtomicFile file_;
  std::string keys_, infos_;
  uint64_t key_count_ = 0;
  std::vector<Place> tensors_;
  int64_t data_bytes_ = 0;  // of the tensors declared so far, each with its padding
  bool begun_ = false;
  size_t current_ = 0;
  int64_t written_ = 0;  // bytes of the current tensor
};

}  // namespace drover
