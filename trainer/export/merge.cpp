#include "trainer/export/merge.h"

#include <map>

#include "kernels/base/error.h"
#include "kernels/base/hash.h"
#include "kernels/base/json.h"
#include "model/files/merged_writer.h"
#include "model/files/staged_directory.h"
#include "model/weight_table.h"
#include "trainer/export/merged_rows.h"
#include "trainer/setup/model_check.h"

namespace drover {

namespace {

constexpr int64_t kRowsAtOnce = 1024;

using Hashes = std::map<std::string, std::vector<uint64_t>>;  // of a tensor's rows, kRowsAtOnce at a time

uint64_t hash_of(const std::vector<float>& values) { return xxh3(values.data(), values.size() * sizeof(float)); }

// Hashes of what every tensor of `back` must hold.
void check_read_back(ModelDirectory& back, const Hashes& written) {
  std::vector<float> values;
  for (const ParamSpec& spec : weight_table(back.config())) {
    const std::vector<uint64_t>& hashes = written.at(spec.name);
    for (int64_t row = 0, part = 0; row < spec.rows; row += kRowsAtOnce, ++part) {
      const int64_t count = std::min(kRowsAtOnce, spec.rows - row);
      values.resize(static_cast<size_t>(count * spec.cols));
      back.read(spec.name, row, count, 0, spec.cols, DType::f32, values.data());
      if (hash_of(values) != hashes.at(static_cast<size_t>(part)))
        fail(Fault::corruption, "read back, {} is not what was written; nothing was written", spec.name);
    }
  }
}

// The base's config.json, with what the adapter changes of it. Merged weights are not quantised.
std::string merged_config(const ModelDirectory& base, const ModelConfig& merged) {
  const fs::path file = base.path() / "config.json";
  const std::string text = read_text(file);
  if (base.config() == merged && !base.is_quantised()) return text;
  OrderedJson json = parse_ordered_json(text, file.string());
  for (const char* name : {"quantization_config", "compression_config"}) json.erase(name);
  json["tie_word_embeddings"] = merged.tied_head;
  json["vocab_size"] = merged.vocab;
  return json.dump(2) + "\n";
}

}  // namespace

ModelConfig merged_model(const AdapterConfig& adapter, const BaseWeights& base) {
  ModelConfig config = base.config();
  if (AdapterMatcher(adapter).match(kHeadModule)) config.tied_head = false;
  return config;
}

void merge(const AdapterSource& adapter, BaseWeights& base, const fs::path& out, Backend& backend,
           const MoreFiles& more, const std::function<void(const fs::path& staged)>& check) {
  check_weights(base.directory());
  const ModelConfig config = merged_model(adapter.config, base);
  StagedDirectory staged(out);
  std::vector<TensorSpec> tensors;
  for (const ParamSpec& spec : weight_table(config))
    tensors.push_back({spec.name, base.plain_dtype(spec.name), base.shape(spec.name)});
  MergedWriter writer(staged.path(), tensors);
  MergedRows merged(adapter, base, backend);
  Hashes written;
  for (const TensorSpec& tensor : writer.order()) {
    merged.each(tensor.name, tensor.dtype, kRowsAtOnce, [&](int64_t, std::vector<float>& values) {
      const std::vector<std::byte> bytes = rounded(tensor.dtype, values);
      written[tensor.name].push_back(hash_of(values));
      writer.write(tensor.name, bytes.data(), static_cast<int64_t>(bytes.size()));
    });
  }
  writer.commit();
  write_text(staged.path() / "config.json", merged_config(base.directory(), config));
  if (more.write) more.write(staged.path());

  ModelDirectory back(staged.path());
  check_weights(back);
  check_read_back(back, written);
  check(staged.path());
  staged.commit();
}

}  // namespace drover
