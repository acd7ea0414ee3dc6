// A safetensors file: its header, and every number that it describes.
#include "model/files/safetensors.h"

#include "tests/fuzz/fuzz.h"

using namespace drover;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const fs::path path = fuzz::written("model.safetensors", fuzz::text_of(data, size));
  return fuzz::accept({Fault::bad_data}, [&] {
    const SafetensorsFile file(path);
    for (const StoredTensor& tensor : file.tensors()) {
      fuzz::holds(file.find(tensor.name) == &tensor, "a tensor is found by its name");
      fuzz::holds(tensor.size() * size_of(tensor.dtype) == static_cast<int64_t>(tensor.bytes),
                  "a tensor has the bytes that its shape needs");
      if (!can_convert(tensor.dtype)) continue;
      std::vector<float> values(static_cast<size_t>(tensor.size()));
      convert(tensor.dtype, file.read(tensor).data(), tensor.size(), DType::f32, values.data());
    }
  });
}
