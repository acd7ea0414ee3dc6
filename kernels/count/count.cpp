#include "kernels/count/count.h"

#include <cstring>

namespace drover {

namespace {

class NoMemory : public Memory {
 public:
  void* allocate(int64_t bytes) override {
    char* address = next_;
    next_ += (bytes + 4095) / 4096 * 4096;
    return address;
  }
  void release(void*, int64_t) override {}
  Where where() const override { return Where::nowhere; }

 private:
  char* next_ = reinterpret_cast<char*>(uintptr_t{1} << 40);
};

}  // namespace

CountBackend::CountBackend(const BackendTraits& traits) : traits_(traits), memory_(std::make_unique<NoMemory>()) {
  observe(&tally_);
}
CountBackend::~CountBackend() = default;

void CountBackend::do_download(Tensor from, void* host) { std::memset(host, 0, static_cast<size_t>(from.bytes())); }

}  // namespace drover
