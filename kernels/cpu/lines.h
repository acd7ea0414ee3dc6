// Memory that begins on a cache line.
#pragma once
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>

namespace drover::cpu {

inline constexpr int64_t kLineBytes = 64;

using Lines = std::unique_ptr<std::byte[], void (*)(void*)>;

// `bytes`: a multiple of kLineBytes. Large memory is held by the process only once it is written. std::bad_alloc
inline Lines lines_of(int64_t bytes) {
  void* data = std::aligned_alloc(kLineBytes, static_cast<size_t>(bytes));
  if (data == nullptr) throw std::bad_alloc();
  return {static_cast<std::byte*>(data), std::free};
}

}  // namespace drover::cpu
