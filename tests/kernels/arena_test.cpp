// Arenas and frames: alignment, giving back, high-water marks, and the message over capacity.
#include <gtest/gtest.h>

#include <optional>

#include "kernels/backend.h"
#include "kernels/base/error.h"
#include "kernels/cpu/cpu_backend.h"

namespace drover {
namespace {

TEST(Arena, FramesGiveBackAndThePeakStays) {
  const auto backend = make_cpu_backend(1);
  Arena arena("scratch", backend->memory(), 10 * Arena::kAlign);
  const Tensor kept = arena.tensor(1, 1, DType::f32);
  EXPECT_EQ(arena.used_bytes(), Arena::kAlign);
  void* inner = nullptr;
  {
    Frame frame(arena);
    inner = frame.tensor(3, 64, DType::f32).data;
    Frame nested(arena);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(nested.tensor(1, 5, DType::bf16).data) % Arena::kAlign, 0u);
    EXPECT_EQ(arena.used_bytes(), 5 * Arena::kAlign);
  }
  EXPECT_EQ(arena.used_bytes(), Arena::kAlign);
  EXPECT_EQ(arena.peak_bytes(), 5 * Arena::kAlign);
  EXPECT_EQ(arena.tensor(1, 1, DType::f32).data, inner);
  EXPECT_NE(kept.data, inner);
}

TEST(Arena, AMovedFrameGivesBackOnce) {
  const auto backend = make_cpu_backend(1);
  Arena arena("scratch", backend->memory(), 10 * Arena::kAlign);
  {
    std::optional<Frame> first(arena);
    first->tensor(1, 1, DType::f32);
    const Frame second = std::move(*first);
    first.reset();
    EXPECT_EQ(arena.used_bytes(), Arena::kAlign);
  }
  EXPECT_EQ(arena.used_bytes(), 0);
}

TEST(Arena, RowsLieAtThePitchThatIsAskedFor) {
  const auto backend = make_cpu_backend(1);
  Arena arena("scratch", backend->memory(), 1 << 16);
  const Tensor t = arena.tensor(3, 60, DType::bf16, 70);
  EXPECT_TRUE(t.cols == 60 && t.pitch == 70 && !t.contiguous());
  EXPECT_EQ(arena.used_bytes(), Arena::bytes_of(3, 60, DType::bf16, 70));
  EXPECT_EQ(arena.used_bytes(), 2 * Arena::kAlign);  // 420 bytes
  EXPECT_TRUE(arena.tensor(3, 60, DType::bf16).contiguous());
  EXPECT_THROW(arena.tensor(3, 60, DType::bf16, 59), Error);
}

TEST(Arena, TwoEndsShareTheBlock) {
  const auto backend = make_cpu_backend(1);
  Arena arena("scratch", backend->memory(), 5 * Arena::kAlign + 100);
  Arena& far = arena.second_stack();
  EXPECT_EQ(&far, &arena.second_stack());
  const Tensor near_one = arena.tensor(1, 64, DType::f32);
  char* const begin = static_cast<char*>(near_one.data);
  {
    Frame frame(far);
    EXPECT_EQ(far.tensor(1, 64, DType::f32).data, begin + 4 * Arena::kAlign);
    EXPECT_EQ(far.tensor(2, 65, DType::f32, 68).data, begin + 1 * Arena::kAlign);
    EXPECT_EQ(arena.peak_bytes(), 5 * Arena::kAlign);
    EXPECT_THROW(arena.tensor(1, 1, DType::f32), Error);
    EXPECT_THROW(far.tensor(1, 1, DType::f32), Error);
  }
  EXPECT_EQ(arena.tensor(4, 64, DType::f32).data, begin + Arena::kAlign);
  EXPECT_THROW(far.tensor(1, 1, DType::f32), Error);
}

TEST(Arena, OverCapacityNamesTheArenaAndTheBytes) {
  const auto backend = make_cpu_backend(1);
  Arena arena("saved", backend->memory(), 1024);
  arena.tensor(1, 64, DType::f32);
  try {
    arena.tensor(1024, 1024, DType::f32);
    FAIL() << "took more than there is";
  } catch (const Error& error) {
    EXPECT_EQ(error.fault(), Fault::internal);
    const std::string message = error.what();
    for (const char* part : {"'saved'", "256", "1024", "4194304"})
      EXPECT_NE(message.find(part), std::string::npos) << message;
  }
}

}  // namespace
}  // namespace drover
