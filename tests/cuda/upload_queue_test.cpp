// The upload queue against a device whose streams are queues of their own: in order where it must be; no host waits.
#include "kernels/cuda/upload_queue.h"

#include <gtest/gtest.h>

#include <numeric>
#include <vector>

#include "kernels/cuda/cuda_backend.h"
#include "tests/cuda/emulation/streams.h"

namespace drover::cuda {
namespace {

class Uploads : public testing::Test {
 protected:
  Uploads() { emulation::asynchronous = true; }
  ~Uploads() override { emulation::asynchronous = false; }
};

// Layer after layer in the same place, as streamed weights come: an op reads each before the next one overwrites it.
TEST_F(Uploads, KeepTheOrderOfReadsAndWritesWithoutHoldingTheHostUp) {
  CudaBackend backend(CudaSettings{});
  constexpr int64_t kLayers = 40, kSize = 4096;
  Arena arena("weights", backend.memory(), (kLayers + 1) * kSize * int64_t{sizeof(float)});
  const Tensor place = arena.tensor(kSize, 1, DType::f32);
  std::vector<Tensor> seen;
  for (int64_t layer = 0; layer < kLayers; ++layer) seen.push_back(arena.tensor(kSize, 1, DType::f32));
  std::vector<float> host(static_cast<size_t>(kSize));
  const int64_t before = emulation::waits;
  for (int64_t layer = 0; layer < kLayers; ++layer) {
    std::fill(host.begin(), host.end(), static_cast<float>(layer + 1));
    const auto transfer = backend.start_upload(host.data(), place);
    transfer->wait();
    backend.copy(place, seen[static_cast<size_t>(layer)]);
  }
  EXPECT_EQ(emulation::waits, before);
  for (int64_t layer = 0; layer < kLayers; ++layer) {
    backend.download(seen[static_cast<size_t>(layer)], host.data());
    EXPECT_EQ(host, std::vector<float>(host.size(), static_cast<float>(layer + 1))) << layer;
  }
}

// From pinned memory the device copies when it comes to it: more bytes than the ring of `start` holds, and no host
// waits.
TEST_F(Uploads, FromPinnedMemoryHoldNobodyUp) {
  CudaBackend backend(CudaSettings{});
  constexpr int64_t kSize = int64_t{5} << 20, kLayers = 4;  // fp32: 80 MB
  Arena arena("weights", backend.memory(), 2 * kSize * int64_t{sizeof(float)} + 4096),
      pinned("images", backend.upload_memory(), kLayers * kSize * int64_t{sizeof(float)});
  const Tensor place = arena.tensor(kSize, 1, DType::f32), sums = arena.tensor(kLayers, 1, DType::f64);
  backend.zero(sums);
  std::vector<Tensor> hosts;
  for (int64_t layer = 0; layer < kLayers; ++layer) {
    hosts.push_back(pinned.tensor(kSize, 1, DType::f32));
    std::fill_n(hosts.back().as<float>(), kSize, static_cast<float>(layer + 1));
  }
  const int64_t before = emulation::waits;
  for (int64_t layer = 0; layer < kLayers; ++layer) {
    backend.start_upload(hosts[static_cast<size_t>(layer)].data, place)->wait();
    backend.sum_squares(place, sums.rows_from(layer, 1));
  }
  EXPECT_EQ(emulation::waits, before);
  std::vector<double> squares(kLayers);
  backend.download(sums, squares.data());
  for (int64_t layer = 0; layer < kLayers; ++layer) {
    EXPECT_EQ(squares[static_cast<size_t>(layer)], static_cast<double>(kSize * (layer + 1) * (layer + 1)));
  }
}

}  // namespace
}  // namespace drover::cuda
