// One big block per lifetime (weights, adapter, optimizer, saved, scratch) and bump allocation inside it.
// An arena over a counting memory hands out addresses that nobody reads: its high-water mark is the plan of the real
// one.
#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <utility>

#include "kernels/tensor.h"

namespace drover {

// Where blocks come from: host pages, device memory, or nowhere (counting).
class Memory {
 public:
  virtual ~Memory() = default;
  virtual void* allocate(
      int64_t bytes) = 0;  // zero-filled, 4096-byte aligned; Fault::internal naming the bytes when there is no memory
  virtual void release(void* block, int64_t bytes) = 0;
  virtual Where where() const = 0;
  virtual int64_t process_bytes(int64_t bytes) const {
    return bytes;
  }                                                         // how many of a block's bytes are the process's own memory
  virtual int64_t free_bytes() const { return INT64_MAX; }  // how many more can be had, the process's own not counted
  virtual int64_t held_bytes() const { return 0; }          // of blocks that are not the process's own
};

class Arena {
 public:
  static constexpr int64_t kAlign = 256;

  Arena(std::string name, Memory& memory, int64_t capacity_bytes);
  ~Arena();
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;

  // Uninitialised. pitch: elements from one row to the next, at least cols; 0: cols. Fails (internal) over capacity.
  Tensor tensor(int64_t rows, int64_t cols, DType dtype, int64_t pitch = 0);
  static int64_t bytes_of(int64_t rows, int64_t cols, DType dtype, int64_t pitch = 0) {  // what such a tensor takes
    return (rows * (pitch == 0 ? cols : pitch) * size_of(dtype) + kAlign - 1) / kAlign * kAlign;
  }
  // Takes from the other end of the same block, for a second stack of frames. Capacity and peak are
  // of both ends together, and asked of this one.
  Arena& second_stack();
  // For plans: every tensor of this end from now on takes so many bytes more than it needs.
  void add_to_each(int64_t bytes) { extra_ = bytes; }
  int64_t used_bytes() const { return used_; }  // of this end
  int64_t peak_bytes() const { return peak_; }
  int64_t capacity_bytes() const { return capacity_; }
  const std::string& name() const { return name_; }

 private:
  friend class Frame;
  struct FarEnd {
    Arena& near;
  };
  explicit Arena(FarEnd of) : name_(of.near.name_), memory_(of.near.memory_), near_(&of.near) {}
  std::string name_;
  Memory& memory_;
  char* block_ = nullptr;
  int64_t capacity_ = 0, used_ = 0, peak_ = 0, extra_ = 0;
  Arena* near_ = nullptr;  // of a far end: the arena whose block it shares
  std::unique_ptr<Arena> far_;
};

// Everything taken from the arena after a Frame opens is given back when it closes. Frames nest like scopes.
class Frame {
 public:
  explicit Frame(Arena& arena) : arena_(&arena), mark_(arena.used_) {}
  Frame(Frame&& other) noexcept : arena_(std::exchange(other.arena_, nullptr)), mark_(other.mark_) {}
  Frame& operator=(Frame&&) = delete;
  ~Frame() {
    if (arena_ != nullptr) arena_->used_ = mark_;
  }
  Tensor tensor(int64_t rows, int64_t cols, DType dtype, int64_t pitch = 0) {
    return arena_->tensor(rows, cols, dtype, pitch);
  }

 private:
  Arena* arena_;
  int64_t mark_;
};

}  // namespace drover
