#include "kernels/comm/communicator.h"

namespace drover {

namespace {

struct Done : Transfer {
  void wait() override {}
};

}  // namespace

std::unique_ptr<Transfer> Communicator::start_all_reduce(Tensor x) {
  all_reduce(x);
  return std::make_unique<Done>();
}

}  // namespace drover
