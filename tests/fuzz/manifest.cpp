// A checkpoint's manifest, with the file of one rank. Its hashes would refuse nearly every input: where the text is
// JSON, they are made right first. What is taken is read, tensor by tensor.
#include "kernels/base/hash.h"
#include "kernels/base/hdf5.h"
#include "kernels/base/json.h"
#include "tests/fuzz/fuzz.h"
#include "trainer/run/checkpoint.h"

using namespace drover;

namespace {

constexpr const char* kFile = "rank-00000.h5";
constexpr int64_t kLargest = 1 << 20;  // elements of a tensor that is read

const std::string& hash_of_file() {
  static const std::string hash = [] {
    hdf5::File file = hdf5::File::create(fuzz::folder() / kFile);
    for (const std::string kind : {"parameters", "moment1", "moment2"}) {
      file.write(kind + "/a.lora_A", std::vector<float>(12, 1.0f), 4);
      file.write(kind + "/b.lora_B", std::vector<float>(10, 2.0f), 5);
    }
    file.close();
    return sha256_file(fuzz::folder() / kFile);
  }();
  return hash;
}

std::string mended(const std::string& text) {
  Json manifest;
  try {
    manifest = parse_json(text, "manifest.json");
  } catch (const Error&) {
    return text;
  }
  if (!manifest.is_object()) return text;
  for (Json& file : manifest.contains("files") ? manifest["files"] : manifest) {
    if (!file.is_object() || file.value("name", Json()) != kFile) continue;
    file["bytes"] = fs::file_size(fuzz::folder() / kFile);
    file["sha256"] = hash_of_file();
  }
  manifest.erase("hash");
  manifest["hash"] = sha256_hex(manifest.dump());
  return manifest.dump();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  hash_of_file();
  fuzz::written("manifest.json", mended(std::string(fuzz::text_of(data, size))));
  return fuzz::accept({Fault::bad_data, Fault::corruption}, [&] {
    const Checkpoint checkpoint = Checkpoint::open(fuzz::folder());
    for (const std::string& name : checkpoint.factor_names()) {
      const auto [rows, cols] = checkpoint.shape(name);
      fuzz::holds(rows >= 0 && cols >= 0, "a shape is not negative");
      if (rows > kLargest || cols > kLargest || rows * cols > kLargest) continue;
      std::vector<float> values(static_cast<size_t>(rows * cols));
      checkpoint.read("parameters", name, 0, rows, 0, cols, values.data());
      if (rows > 0) checkpoint.read("moment1", name, rows - 1, 1, 0, cols, values.data());
    }
  });
}
