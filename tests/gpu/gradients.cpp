// The loss and the adapter's gradients of one batch, for comparison with PyTorch: a model directory, an adapter as PEFT
// saves it, token ids of documents (each token's label is the next one). The gradients come out as an adapter
// directory; the loss as JSON. Usage: gpu_gradients MODEL ADAPTER IDS_JSON cpu|cuda fp32|bf16 OUT
#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>

#include "kernels/base/file.h"
#include "kernels/cpu/cpu_backend.h"
#include "kernels/cuda/cuda_backend.h"
#include "trainer/engine/plan.h"
#include "trainer/export/export.h"
#include "trainer/setup/adapter_setup.h"

namespace drover {
namespace {

Batch batch_of(const std::vector<std::vector<int32_t>>& documents) {
  MicroBatch m;
  for (size_t d = 0; d < documents.size(); ++d) {
    const std::vector<int32_t>& ids = documents[d];
    m.spans.push_back({static_cast<int64_t>(m.tokens.size()), static_cast<int64_t>(ids.size())});
    for (size_t i = 0; i < ids.size(); ++i) {
      const bool trained = i + 1 < ids.size();
      m.tokens.push_back(ids[i]);
      m.labels.push_back(trained ? ids[i + 1] : -1);
      m.weights.push_back(trained ? 1.0f : 0.0f);
      m.positions.push_back(static_cast<int32_t>(i));
      m.documents.push_back(static_cast<int32_t>(d));
    }
  }
  Batch batch;
  batch.total = 1;
  batch.tokens = static_cast<int64_t>(m.tokens.size());
  batch.trained_tokens = batch.tokens - static_cast<int64_t>(documents.size());
  batch.weight_sum = static_cast<double>(batch.trained_tokens);
  batch.micro_batches.push_back(std::move(m));
  return batch;
}

void run(char** argv) {
  const fs::path adapter = argv[2], out = argv[6];
  const std::string device = argv[4], dtype = argv[5];
  const auto documents = nlohmann::json::parse(read_text(argv[3])).get<std::vector<std::vector<int32_t>>>();
  const std::shared_ptr<Backend> backend =
      device == "cuda" ? std::unique_ptr<Backend>(std::make_unique<cuda::CudaBackend>(cuda::CudaSettings{}))
                       : make_cpu_backend(2);
  ModelDirectory directory(argv[1]);
  const Batch batch = batch_of(documents);
  EngineSettings s;
  s.model = directory.config();
  s.adapter = adapter_layout_of(s.model, adapter_config_in(adapter));
  s.partition = partition_layers(s.model.layers, 1, 0.5);
  s.dtype = dtype == "bf16" ? DType::bf16 : DType::f32;
  s.traits = backend->traits();
  for (const auto& ids : documents) s.max_positions = std::max(s.max_positions, static_cast<int64_t>(ids.size()));
  s.capacity.micro_batch = {batch.tokens, batch.tokens};
  const ArenaBytes bytes = plan_rank(s, {}, {}).bytes;
  const std::unique_ptr<Replica> replica = open_replica(s, {backend, make_self_mesh()}, BaseWeights(directory), bytes);
  Engine engine(s, *replica, bytes.saved);
  load_adapter(adapter, s.model, *replica->adapter);
  const double loss = engine.accumulate_gradients(batch, 1);

  FactorShapes shapes;
  std::map<std::string, const FactorSlice*> slices;
  for (const FactorSlice& f : replica->adapter->factors()) {
    shapes[f.name] = {f.rows, f.cols};
    slices[f.name] = &f;
  }
  write_adapter(
      out, adapter_config_in(adapter), shapes,
      [&](const std::string& factor) {
        const FactorSlice& f = *slices.at(factor);
        AdapterMatrix m{f.rows, f.cols, std::vector<float>(static_cast<size_t>(f.size()))};
        backend->download(view(replica->adapter->gradients, f), m.values.data());
        return m;
      },
      DType::f32);
  std::cout << nlohmann::json{{"loss", loss}, {"report", backend->report()}}.dump() << std::endl;
}

}  // namespace
}  // namespace drover

int main(int argc, char** argv) {
  if (argc != 7) return std::cerr << "usage: gpu_gradients MODEL ADAPTER IDS_JSON cpu|cuda fp32|bf16 OUT\n", 64;
  try {
    drover::run(argv);
  } catch (const std::exception& e) {
    std::cerr << "gpu_gradients: " << e.what() << '\n';
    return 70;
  }
}
