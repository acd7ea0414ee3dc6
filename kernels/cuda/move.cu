// Moving rows: what keeps its dtype moves as words of up to 16 bytes, what changes it is converted, f64 to bf16 by way
// of fp32.
#include "kernels/cuda/check.h"
#include "kernels/cuda/cuda_backend.h"
#include "kernels/cuda/walk.h"

namespace drover::cuda {

namespace {

// to[to_row[r]] = from[from_row[r] - begin], or zeros where that is not one of its first `valid` rows. Without an index
// a row keeps its number.
template <typename Word>
__global__ void move_kernel(Walk w, const Word* from, int64_t from_pitch, const int32_t* from_row, int64_t begin,
                            int64_t valid, Word* to, int64_t to_pitch, const int32_t* to_row) {
  const Spot at = spot_of(w);
  if (!at.inside) return;
  const int64_t source = from_row == nullptr ? at.row : from_row[at.row] - begin,
                target = to_row == nullptr ? at.row : to_row[at.row];
  Word word{};
  if (source >= 0 && source < valid) word = from[source * from_pitch + at.pack];
  to[target * to_pitch + at.pack] = word;
}

template <int N, typename From, typename To>
__global__ void convert_kernel(Walk w, const From* from, int64_t from_pitch, To* to, int64_t to_pitch) {
  const Spot at = spot_of(w);
  if (!at.inside) return;
  float v[N];
  load_pack(from + at.row * from_pitch + at.pack * N, v);
  store_pack(to + at.row * to_pitch + at.pack * N, v);
}

struct Move {
  Tensor from, to;
  const int32_t *from_row = nullptr, *to_row = nullptr;
  int64_t begin = 0;
  int64_t rows = 0, valid = 0;  // rows moved; rows of `from` that count
};

void move(cudaStream_t stream, const char* name, const Move& m) {
  require(m.from.dtype == m.to.dtype && m.from.cols == m.to.cols, "rows are moved without a change of dtype or width");
  const int64_t size = size_of(m.from.dtype), bytes = m.from.cols * size, from_pitch = m.from.pitch * size,
                to_pitch = m.to.pitch * size;
  uint64_t all =
      reinterpret_cast<uintptr_t>(m.from.data) | reinterpret_cast<uintptr_t>(m.to.data) | static_cast<uint64_t>(bytes);
  if (m.from.rows > 1) all |= static_cast<uint64_t>(from_pitch);
  if (m.to.rows > 1) all |= static_cast<uint64_t>(to_pitch);
  const auto in_words = [&](auto word) {
    using Word = decltype(word);
    constexpr int64_t kBytes = sizeof(Word);
    const Walk w = walk(m.rows, bytes / kBytes);
    launch(name, move_kernel<Word>, w.grid, kWalkThreads, 0, stream, w, static_cast<const Word*>(m.from.data),
           from_pitch / kBytes, m.from_row, m.begin, m.valid, static_cast<Word*>(m.to.data), to_pitch / kBytes,
           m.to_row);
  };
  if (all % 16 == 0) return in_words(uint4{});
  if (all % 8 == 0) return in_words(uint2{});
  if (all % 4 == 0) return in_words(uint32_t{});
  in_words(uint16_t{});
}

template <typename F>
void with_number(Tensor t, F&& f) {
  if (t.dtype == DType::f64) return f(static_cast<double*>(t.data));
  with_type(t, f);
}

const int32_t* index_of(Tensor index) { return as_row(index).as<int32_t>(); }

}  // namespace

void CudaBackend::do_copy(Tensor from, Tensor to) {
  flatten(from, to);
  if (from.dtype == to.dtype)
    return move(stream_, "copy", {.from = from, .to = to, .rows = from.rows, .valid = from.rows});
  with_width({from, to}, [&](auto n) {
    with_number(from, [&](const auto* x) {
      with_number(to, [&](auto* y) {
        using X = element<decltype(x)>;
        using Y = element<decltype(y)>;
        constexpr int N =
            std::is_same_v<X, double> || std::is_same_v<Y, double> ? 1 : n();  // pack_width gives no more for f64
        if constexpr (!std::is_same_v<X, Y>) {
          const Walk w = walk(from.rows, from.cols / N);
          launch("copy", convert_kernel<N, X, Y>, w.grid, kWalkThreads, 0, stream_, w, x, from.pitch, y, to.pitch);
        }
      });
    });
  });
}

void CudaBackend::do_zero(Tensor x) {
  if (x.size() == 0) return;
  const size_t element = static_cast<size_t>(size_of(x.dtype));
  if (x.contiguous()) {
    check(cudaMemsetAsync(x.data, 0, static_cast<size_t>(x.bytes()), stream_), "cudaMemsetAsync");
  } else {
    check(cudaMemset2DAsync(x.data, static_cast<size_t>(x.pitch) * element, 0, static_cast<size_t>(x.cols) * element,
                            static_cast<size_t>(x.rows), stream_),
          "cudaMemset2DAsync");
  }
}

void CudaBackend::do_gather_rows(Tensor x, Tensor index, Tensor y) {
  move(stream_, "gather_rows", {.from = x, .to = y, .from_row = index_of(index), .rows = index.rows, .valid = x.rows});
}

void CudaBackend::do_scatter_rows(Tensor x, Tensor index, Tensor y) {
  move(stream_, "scatter_rows", {.from = x, .to = y, .to_row = index_of(index), .rows = index.rows, .valid = x.rows});
}

void CudaBackend::do_embedding(Tensor ids, const Weight& weight, int64_t begin, int64_t valid, Tensor y) {
  const Tensor table = static_cast<const DenseWeight&>(weight).values;
  move(stream_, "embedding",
       {.from = table, .to = y, .from_row = index_of(ids), .begin = begin, .rows = ids.rows, .valid = valid});
}

}  // namespace drover::cuda
