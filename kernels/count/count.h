// The backend that only counts: its kernels do nothing and its addresses are never read, and a tally observes its ops.
// It plans memory, FLOPs and what runs at all.
#pragma once
#include "kernels/backend.h"
#include "kernels/count/tally.h"

namespace drover {

// Ops that do nothing.
class NullBackend : public Backend {
 protected:
#define DROVER_NO_KERNEL(NAME, ...) \
  void do_##NAME(__VA_ARGS__) override {}
  DROVER_OPS(DROVER_NO_KERNEL)
#undef DROVER_NO_KERNEL
};

class CountBackend : public NullBackend {
 public:
  explicit CountBackend(const BackendTraits& traits = {});  // of the backend that is counted for
  ~CountBackend() override;
  const std::map<std::string_view, OpCount>& counts() const { return tally_.counts(); }
  int64_t calls(std::string_view op) const { return tally_.calls(op); }
  int64_t total_flops() const { return tally_.total_flops(); }
  void record_shapes(bool on) { tally_.record_shapes(on); }
  const std::vector<std::string>& shapes() const { return tally_.shapes(); }

  Memory& memory() override { return *memory_; }
  int64_t workspace_bytes(int64_t) const override { return 0; }
  BackendTraits traits() const override { return traits_; }

 protected:
  void do_download(Tensor from, void* host) override;  // zero-fills host

 private:
  BackendTraits traits_;
  std::unique_ptr<Memory> memory_;
  Tally tally_;
};

}  // namespace drover
