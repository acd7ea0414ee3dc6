// The communicator of one rank: nothing to wait for, nothing to add.
#include "kernels/base/error.h"
#include "kernels/comm/communicator.h"
#include "kernels/comm/rank_sum.h"

namespace drover {

namespace {

class SelfCommunicator : public Communicator {
 public:
  explicit SelfCommunicator(std::string axis) : axis_(std::move(axis)) {}
  int rank() const override { return 0; }
  int size() const override { return 1; }
  const std::string& axis() const override { return axis_; }

  void all_reduce(Tensor) override {}
  void all_gather(Tensor part, Tensor whole) override {
    require(part.rows == whole.rows && part.cols == whole.cols && part.dtype == whole.dtype,
            "an all-gather of one rank is a copy");
    if (part.where == Where::nowhere || part.data == whole.data) return;
    require(part.where == Where::host && whole.where == Where::host,
            "this communicator moves host memory; elsewhere the part lies in its place");
    for (int64_t row = 0; row < part.rows; ++row) pack(part, row * part.cols, part.cols, whole.rows_from(row, 1).data);
  }
  void broadcast(Tensor, int root) override { require(root == 0, "the root is a rank of the group"); }
  void barrier() override {}
  std::unique_ptr<Transfer> exchange(std::span<const PeerMessage>) override {
    fail(Fault::internal, "internal error: {}: a group of one rank has nobody to send to or receive from", axis_);
  }
  std::vector<std::string> gather_strings(const std::string& mine) override { return {mine}; }
  std::vector<std::optional<std::string>> roll_call(const std::string& mine, double) override { return {mine}; }

 private:
  std::string axis_;
};

}  // namespace

std::unique_ptr<Communicator> make_self_communicator(std::string axis) {
  return std::make_unique<SelfCommunicator>(std::move(axis));
}

}  // namespace drover
