// Linears in fp8 (kernels/fp8_products.h). The low-rank terms are products of their own in x's dtype, added to the same
// fp32 sums, and the result is rounded once; where there are none, cuBLASLt rounds it. Weights for y lie as they are
// multiplied, but for short runs; for dx they are transposed into the panel, which the next linear's takes.
#include "kernels/cuda/cuda_backend.h"
#include "kernels/cuda/products.h"

namespace drover::cuda {

namespace {

constexpr int64_t kBlock = Fp8Depth::kBlock;

// Columns that a panel of codes and a tile of fp32 sums have room for: whole blocks, or all.
int64_t columns_at_once(int64_t all, int64_t rows, int64_t depth, int64_t panel_bytes) {
  const int64_t most = std::min(panel_bytes / depth, Matmul::kPanelFloats / rounded_up_to(rows, 16)) / kBlock * kBlock;
  return std::min(all, std::max(most, kBlock));
}

struct Columns {
  int64_t begin, count;
};
// w's outputs in pieces of at most `most`; with blocks, of one part each.
std::vector<Columns> pieces(const Fp8Weight& w, bool blocks, int64_t most) {
  std::vector<int64_t> counts{w.out()};
  if (blocks) {
    counts.clear();
    for (const Scaling::Part& part : w.parts()) counts.push_back(part.rows);
  }
  std::vector<Columns> all;
  int64_t begin = 0;
  for (const int64_t count : counts) {
    for (int64_t at = 0; at < count; at += most) all.push_back({begin + at, std::min(most, count - at)});
    begin += count;
  }
  return all;
}

}  // namespace

// out (rows, columns) (+)= x·wᵀ in fp8, and what `add` adds to the fp32 sums.
void CudaBackend::multiply_fp8(const Fp8Operand& x, const Fp8Operand& w, bool blocks, bool accumulate, Tensor out,
                               const std::function<void(Tensor)>& add) {
  const float beta = accumulate ? 1.0f : 0.0f;
  if (!add && Fp8Matmul::takes(out)) return (*fp8_matmul_)(x, w, blocks, beta, out);
  const Tensor tile = matmul_->result_panel(x.codes.rows, out.cols), sums = tile.rows_from(0, out.rows);
  if (accumulate) {
    if (tile.rows > out.rows) zero(tile.rows_from(out.rows, tile.rows - out.rows));
    copy(out, sums);
  }
  (*fp8_matmul_)(x, w, blocks, beta, tile);
  if (add) add(sums);
  copy(sums, out);
}

void CudaBackend::linear_fp8(Tensor x, const Fp8Weight& w, const LowRankTerms& low_rank, bool accumulate, Tensor y) {
  if (y.size() == 0) return;
  for (const LowRankRun& run : low_rank_runs(low_rank.terms))
    low_rank_input(*this, x, run, low_rank.dropped, low_rank.u.columns(run.column, run.a.rows));
  LinearPaths::Count& path = paths_.forward[{w.in(), w.out()}];
  ++(low_rank.terms.empty() ? path.plain : path.unfused);
  const Fp8Depth depth = input_depth(w);
  Products product{*this, *matmul_, stream_};
  const int64_t rows = Fp8Operands::rows_at_once(x.rows, depth);
  for (int64_t row = 0; row < x.rows; row += rows) {
    const int64_t some = std::min(rows, x.rows - row);
    const Fp8Operand coded = fp8_operands_->quantise(x.rows_from(row, some), depth, w.largest_input, nullptr);
    const int64_t most = columns_at_once(w.out(), some, depth.depth(), settings_.most_panel_bytes);
    for (const auto& [begin, count] : pieces(w, depth.blocks, most)) {
      const Tensor panel = depth.depth() == w.in() ? Tensor{} : dequantiser_->panel(count, depth.depth(), DType::u8);
      const Fp8Operand codes = fp8_operands_->rows_of(w, depth, begin, count, panel);
      const auto add = [&, begin = begin](Tensor sums) {
        LowRankTerms terms = low_rank;
        terms.u = low_rank.u.rows_from(row, some);
        add_terms(product, terms, begin, sums);
      };
      multiply_fp8(coded, codes, depth.blocks, accumulate, y.rows_from(row, some).columns(begin, count),
                   low_rank.terms.empty() ? std::function<void(Tensor)>() : add);
    }
  }
}

void CudaBackend::linear_dx_fp8(Tensor dy, const Fp8Weight& w, Tensor v, Tensor a, Tensor dx) {
  if (dx.size() == 0) return;
  LinearPaths::Count& path = paths_.backward[{w.in(), w.out()}];
  ++(v.empty() ? path.plain : path.unfused);
  const Fp8Depth depth = output_depth(w);
  Products product{*this, *matmul_, stream_};
  const int64_t rows = Fp8Operands::rows_at_once(dy.rows, depth);
  for (int64_t row = 0; row < dy.rows; row += rows) {
    const int64_t some = std::min(rows, dy.rows - row);
    const Fp8Operand coded = fp8_operands_->quantise(dy.rows_from(row, some), depth, 0, depth.blocks ? nullptr : &w);
    const int64_t most = columns_at_once(w.in(), some, depth.depth(), settings_.most_panel_bytes);
    for (int64_t begin = 0; begin < w.in(); begin += most) {
      const int64_t count = std::min(most, w.in() - begin);
      const Fp8Operand codes =
          fp8_operands_->columns_of(w, depth, begin, count, dequantiser_->panel(count, depth.depth(), DType::u8));
      const auto add = [&](Tensor sums) {
        product(Trans::no, Trans::no, 1, v.rows_from(row, some), a.columns(begin, count), 1, sums);
      };
      multiply_fp8(coded, codes, depth.blocks, false, dx.rows_from(row, some).columns(begin, count),
                   v.empty() ? std::function<void(Tensor)>() : add);
    }
  }
}

}  // namespace drover::cuda
