#include "kernels/count/count.h"

#include <algorithm>
#include <cstring>

#include "kernels/base/error.h"

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

int64_t visible_pairs(std::span<const Segment> segments) {
  int64_t pairs = 0;
  for (const Segment& s : segments) {
    for (int64_t i = 0; i < s.nq; ++i) pairs += std::clamp<int64_t>(i + s.offset + 1, 0, s.nk);
  }
  return pairs;
}

}  // namespace

CountBackend::CountBackend(const BackendTraits& traits) : traits_(traits), memory_(std::make_unique<NoMemory>()) {}
CountBackend::~CountBackend() = default;

int64_t CountBackend::calls(const std::string& op) const {
  const auto found = counts_.find(op);
  return found == counts_.end() ? 0 : found->second.calls;
}

int64_t CountBackend::total_flops() const {
  int64_t sum = 0;
  for (const auto& [name, count] : counts_) sum += count.flops;
  return sum;
}

void CountBackend::tally(const char* op, int64_t flops) {
  OpCount& count = counts_[op];
  count.calls += 1;
  count.flops += flops;
}

void CountBackend::tally_product(const char* op, Tensor a, int64_t rows, int64_t cols, int64_t flops) {
  tally(op, flops);
  if (record_) shapes_.push_back(fmt::format("{} ({},{})x({},{})", op, a.rows, a.cols, rows, cols));
}

void CountBackend::copy(Tensor, Tensor) { tally("copy", 0); }
void CountBackend::zero(Tensor) { tally("zero", 0); }
void CountBackend::upload(const void*, Tensor) { tally("upload", 0); }
void CountBackend::download(Tensor from, void* host) {
  tally("download", 0);
  std::memset(host, 0, static_cast<size_t>(from.bytes()));
}
void CountBackend::gather_rows(Tensor, Tensor, Tensor) { tally("gather_rows", 0); }
void CountBackend::scatter_rows(Tensor, Tensor, Tensor) { tally("scatter_rows", 0); }

void CountBackend::gemm(Trans ta, Trans tb, float, Tensor a, Tensor b, float, Tensor c) {
  const int64_t k = ta == Trans::no ? a.cols : a.rows;
  require(c.rows == (ta == Trans::no ? a.rows : a.cols) && c.cols == (tb == Trans::no ? b.cols : b.rows) && k == (tb == Trans::no ? b.rows : b.cols),
          "gemm's shapes fit");
  tally_product("gemm", a, b.rows, b.cols, 2 * c.rows * c.cols * k);
}

void CountBackend::linear(Tensor x, const Weight& w, const LowRankTerms& low_rank, bool, Tensor y) {
  require(x.cols == w.in() && y.cols == w.out() && x.rows == y.rows, "linear's shapes fit");
  int64_t flops = 2 * x.rows * w.out() * w.in();
  for (const LowRank& term : low_rank.terms) flops += 2 * x.rows * (term.a.size() + term.b.size());
  tally_product("linear", x, w.out(), w.in(), flops);
}

void CountBackend::linear_dx(Tensor dy, const Weight& w, Tensor v, Tensor a, Tensor dx) {
  require(dy.cols == w.out() && dx.cols == w.in() && dx.rows == dy.rows, "linear_dx's shapes fit");
  const int64_t flops = 2 * dy.rows * w.out() * w.in() + 2 * v.rows * v.cols * a.cols;
  tally_product("linear_dx", dy, w.out(), w.in(), flops);
}

void CountBackend::add(Tensor x, Tensor) { tally("add", x.size()); }
void CountBackend::scale_rows(Tensor, Tensor x) { tally("scale_rows", x.size()); }
void CountBackend::dropout(Tensor x, const DropoutMask&, Tensor) { tally("dropout", x.size()); }
void CountBackend::dropout_add(Tensor x, const DropoutMask&, Tensor) { tally("dropout_add", x.size()); }
void CountBackend::rms_norm(Tensor x, Tensor, float, Tensor, Tensor) { tally("rms_norm", 4 * x.size()); }
void CountBackend::rms_norm_again(Tensor x, Tensor, Tensor, Tensor) { tally("rms_norm_again", 2 * x.size()); }
void CountBackend::rms_norm_backward(Tensor dy, Tensor, Tensor, Tensor, Tensor) { tally("rms_norm_backward", 8 * dy.size()); }
void CountBackend::rope(Tensor x, Tensor, Tensor, Tensor, bool) { tally("rope", 3 * x.size()); }
void CountBackend::swiglu(Tensor, Tensor y) { tally("swiglu", 5 * y.size()); }
void CountBackend::swiglu_backward(Tensor dy, Tensor, Tensor, Tensor y) { tally("swiglu_backward", 10 * dy.size() + y.size()); }
void CountBackend::embedding(Tensor, const Weight&, int64_t, int64_t, Tensor) { tally("embedding", 0); }

void CountBackend::attention(Tensor, const KvView&, std::span<const Segment> segments, const AttentionShape& shape, Tensor, Tensor) {
  tally("attention", 4 * shape.heads * shape.head_dim * visible_pairs(segments));
}
void CountBackend::attention_backward(Tensor, const KvView&, std::span<const Segment> segments, const AttentionShape& shape, Tensor, Tensor, Tensor,
                                      Tensor, Tensor, Tensor) {
  tally("attention_backward", 10 * shape.heads * shape.head_dim * visible_pairs(segments));
}

void CountBackend::start_statistics(Tensor) { tally("start_statistics", 0); }
void CountBackend::fold_statistics(Tensor logits, Tensor, int64_t, int64_t, Tensor) { tally("fold_statistics", 3 * logits.size()); }
void CountBackend::merge_statistics(Tensor parts, Tensor, Tensor) { tally("merge_statistics", 3 * parts.size()); }
void CountBackend::cross_entropy_backward(Tensor logits, Tensor, int64_t, int64_t, Tensor, Tensor) {
  tally("cross_entropy_backward", 3 * logits.size());
}

void CountBackend::sample(Tensor logits, Tensor, Tensor) { tally("sample", logits.size()); }
void CountBackend::penalize(Tensor, Tensor, Tensor changes) { tally("penalize", changes.size()); }
void CountBackend::log_probabilities(Tensor logits, Tensor, Tensor, Tensor, Tensor) {
  tally("log_probabilities", 2 * logits.size());
}
void CountBackend::sum_squares(Tensor x, Tensor) { tally("sum_squares", 2 * x.size()); }
void CountBackend::dot(Tensor x, Tensor, Tensor) { tally("dot", 2 * x.size()); }
void CountBackend::clip_factor(Tensor, float, Tensor) { tally("clip_factor", 0); }
void CountBackend::adamw(const AdamW&, Tensor, Tensor, Tensor p, Tensor, Tensor) { tally("adamw", 12 * p.size()); }

}  // namespace drover
