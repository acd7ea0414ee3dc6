// How fast a machine is, op by op: what its calls took when they were measured (calibration.h), or rough figures of its
// kind. A call that was not measured takes as long as its neighbours say: among calls of its op, dtype and weight
// format, the logarithm of the time per FLOP (of products and attention) or per byte (of all others) is a plane through
// the nearest ones in the logarithms of their sizes, which it leaves neither beyond the sizes nor beyond the rates
// that were measured.
#pragma once
#include <array>
#include <map>
#include <string>
#include <vector>

#include "kernels/op_call.h"
#include "kernels/weight.h"

namespace drover {

struct OpSample {  // what equal calls take (calibrate.cpp)
  std::string op;
  DType dtype = DType::f32;
  Format format = Format::f32;
  Products products = Products::widened;
  bool generates = false;
  Shape a, b;
  int64_t flops = 0, bytes = 0;
  double seconds = 0;
};

// Of one call of a Communicator's method: all_reduce, all_gather, exchange (of one message), by bytes.
struct MessageSample {
  std::string kind;
  int ranks = 2;
  int64_t bytes = 0;
  double seconds = 0;
};

// Of a rank, where nothing was measured.
struct RoughRates {
  std::string name;    // of the machine, and where the figures are from
  double product = 0;  // FLOP/s of matrix products in bf16
  double product_fp8 = 0;
  double peak = 0;                               // FLOP/s that an MFU is a share of
  double attention = 0, attention_backward = 0;  // FLOP/s
  double memory = 0;                             // bytes/s
  double call_seconds = 0;                       // the least that an op takes
  double upload = 0;                             // bytes/s from the host's memory
  double read = 0;                               // bytes/s of weights from files, as they are loaded
  double link = 0, link_seconds = 0;        // among ranks of a node: bytes/s that a collective moves, and its start
  double network = 0, network_seconds = 0;  // among nodes, for each rank
  int ranks_a_node = 1;
};

class Rates {
 public:
  explicit Rates(RoughRates rough) : rough_(std::move(rough)) {}
  Rates(RoughRates rough, const std::vector<OpSample>& ops, std::vector<MessageSample> messages);

  double seconds(const OpCall& call) const;
  // A call of all ranks of a group; `spread`: over several nodes, which is not measured. Of a number of ranks that was
  // not measured, the nearest one's time, as a ring's parts are to each other.
  double message_seconds(std::string_view kind, int64_t bytes, int ranks, bool spread) const;
  double best_product() const { return best_product_; }  // FLOP/s: the most that was measured, or the rough figure
  const RoughRates& rough() const { return rough_; }
  bool measured() const { return !groups_.empty(); }

 private:
  static constexpr size_t kSizes = 4;
  using Sizes = std::array<double, kSizes>;  // logarithms
  struct Point {
    Sizes sizes;
    double rate;  // ln(seconds per FLOP or byte)
  };
  struct Group {
    std::vector<Point> points;
    Sizes least, most;
    double slowest, fastest;
  };
  static Sizes sizes_of(const OpCall& call);
  static std::string key_of(const OpCall& call, int detail);
  static double interpolated(const Group& group, Sizes at);
  void add(const std::string& key, const Point& point);
  double rough_seconds(const OpCall& call) const;

  RoughRates rough_;
  double best_product_ = 0;
  std::map<std::string, Group> groups_;
  std::vector<MessageSample> messages_;
};

bool counts_flops(const OpCall& call);    // whose time FLOPs say, not bytes
std::string kind_of(const OpCall& call);  // the same text for calls that take the same time

}  // namespace drover
