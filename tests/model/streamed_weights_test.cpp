// The ring of weights by itself: whose weights lie in a slot when, and what is copied.
#include "model/streamed_weights.h"

#include <gtest/gtest.h>

#include "kernels/base/error.h"
#include "kernels/cpu/cpu_backend.h"

namespace drover {
namespace {

// Weights of which every element is the number of their layer.
class Numbered : public WeightSource {
 public:
  void read(const ParamSpec& spec, int64_t, int64_t, Tensor to) override {
    for (int64_t i = 0; i < to.size(); ++i) to.as<float>()[i] = static_cast<float>(number_of(spec.name));
  }
  static int number_of(const std::string& name) { return std::stoi(name); }
};

constexpr int64_t kBlocks = 5, kSide = 8, kBlockBytes = kSide * kSide * 4;

struct Ring {
  std::shared_ptr<Backend> backend = make_cpu_backend(1);
  Arena arena{"weights", backend->memory(), 1 << 16};
  Numbered source;
  std::vector<ParamSpec> specs;
  StreamedWeights weights;
  std::vector<std::shared_ptr<const Weight>> laid_out;

  explicit Ring(size_t slots) : weights(*backend, arena, nullptr, slots) {
    for (int64_t i = 0; i < kBlocks; ++i) specs.push_back({.name = std::to_string(i), .rows = kSide, .cols = kSide});
    std::vector<std::vector<WeightShape>> shapes;
    for (int64_t i = 0; i < kBlocks; ++i) shapes.push_back({linear(i).shape(0)});
    weights.make_ring(shapes);
    for (int64_t i = 0; i < kBlocks; ++i) {
      laid_out.push_back(weights.add(static_cast<size_t>(i), i, linear(i), shapes[static_cast<size_t>(i)].front()));
      weights.keep(static_cast<size_t>(i));
    }
  }
  FrozenLinear linear(int64_t block) {
    const LinearSlice slice{&specs[static_cast<size_t>(block)], {0, kSide}, {0, kSide}};
    return {std::span(&slice, 1), source, {WeightsAs::as_is, Products::widened, DType::f32}};
  }
  int there(size_t block) const {  // whose weights lie where this block's are
    return static_cast<int>(static_cast<const DenseWeight&>(*laid_out[block]).values.as<float>()[kSide * kSide - 1]);
  }
  int64_t copied() const { return weights.copied_bytes() / kBlockBytes; }
};

TEST(StreamedWeights, AreThereFromGetToRelease) {
  Ring ring(2);
  EXPECT_EQ(ring.arena.used_bytes(), 2 * kBlockBytes);
  EXPECT_EQ(ring.weights.ring_bytes(), 2 * kBlockBytes);
  EXPECT_EQ(ring.weights.host_bytes(), 0);  // they are read again
  for (size_t block = 0; block < kBlocks; ++block) {
    ring.weights.acquire(block);
    ring.weights.get(block);
    EXPECT_EQ(ring.there(block), static_cast<int>(block));
    ring.weights.release(block);
  }
  EXPECT_EQ(ring.copied(), kBlocks);
}

TEST(StreamedWeights, WhatIsThereIsNotCopiedAgain) {
  Ring ring(2);
  for (const size_t block : {0, 1, 2, 3, 4, 4, 3, 2, 1, 0, 0, 1}) {
    ring.weights.acquire(block);
    const HeldWeights held(ring.weights, block);
    EXPECT_EQ(ring.there(block), static_cast<int>(block));
  }
  EXPECT_EQ(ring.copied(), 5 + 3);
}

TEST(StreamedWeights, ComeAsSoonAsNobodyHoldsTheirSlot) {
  Ring ring(2);
  ring.weights.get(0);
  ring.weights.get(0);  // by a second pass
  ring.weights.get(1);
  ring.weights.acquire(2);
  ring.weights.release(0);
  EXPECT_EQ(ring.there(0), 0);
  EXPECT_EQ(ring.copied(), 2);
  ring.weights.release(0);
  EXPECT_EQ(ring.there(2), 2);
  EXPECT_EQ(ring.copied(), 3);
  ring.weights.get(2);
  EXPECT_EQ(ring.copied(), 3);
  EXPECT_EQ(ring.there(1), 1);
}

TEST(StreamedWeights, AreThereWithoutHavingBeenAskedForBefore) {
  Ring ring(3);
  for (const size_t block : {4, 1, 3, 0}) {
    const HeldWeights held(ring.weights, block);
    EXPECT_EQ(ring.there(block), static_cast<int>(block));
  }
}

TEST(StreamedWeights, ARingIsNoLongerThanTheBlocks) {
  Ring ring(9);
  EXPECT_EQ(ring.weights.ring_bytes(), kBlocks * kBlockBytes);
}

TEST(StreamedWeights, APassThatWouldWaitForEverIsABug) {
  Ring ring(2);
  ring.weights.get(0);
  EXPECT_THROW(ring.weights.get(2), Error);
  EXPECT_THROW(ring.weights.release(1), Error);
}

}  // namespace
}  // namespace drover
