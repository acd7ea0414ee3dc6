// A GGUF file: its keys and tensors, and its import into a Hugging Face directory, which must be one.
#include "model/files/gguf.h"

#include "data/tokenizer.h"
#include "model/files/import_gguf.h"
#include "model/files/model_directory.h"
#include "tests/fuzz/fuzz.h"

using namespace drover;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const fs::path path = fuzz::written("model.gguf", fuzz::text_of(data, size)), directory = fuzz::folder() / "model";
  return fuzz::accept({Fault::bad_data}, [&] {
    {
      const GgufFile file(path);
      for (const GgufTensor& tensor : file.tensors()) {
        fuzz::holds(file.find(tensor.name) == &tensor, "a tensor is found by its name");
        std::vector<float> values(static_cast<size_t>(tensor.size()));
        dequantise(tensor, 0, tensor.size(), values.data());
      }
    }
    fs::remove_all(directory);
    fuzz::holds(import_gguf(path, directory), "a file is imported where nothing is");
    std::vector<float> row;
    ModelDirectory model(directory);
    for (const std::string& name : model.names()) {
      const std::vector<int64_t> shape = model.shape(name);
      const int64_t cols = shape.size() > 1 ? shape[1] : 1;
      row.resize(static_cast<size_t>(cols));
      model.read(name, shape[0] - 1, 1, 0, cols, DType::f32, row.data());
    }
    Tokenizer::open(directory);
  });
}
