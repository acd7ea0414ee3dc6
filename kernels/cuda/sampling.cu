// The choice of the next token without a sort: a token's place in the order is a number (its key), and the token at which the mass reaches a line is found
// from the key's highest digit down, by summing the masses of every digit. Masses are fixed-point integers: their sums do not depend on the order.
// One block a row. Every thread has sums of its own in shared memory, so that no two threads write to one place.
#include "kernels/cuda/cuda_backend.h"
#include "kernels/cuda/walk.h"

namespace drover::cuda {

namespace {

constexpr int kThreads = 1024;
constexpr int kDigitBits = 4, kDigits = 1 << kDigitBits;
constexpr size_t kSumBytes = size_t{kDigits} * kThreads * sizeof(uint64_t);
constexpr int kTogether = 8;   // loads in flight
constexpr int kMassBits = 62;  // of the sum of all masses at most

struct Order {
  int id_bits;  // a multiple of kDigitBits; the key has the logit above them

  // Rises where the logit falls, and with the id among equals.
  __device__ uint64_t key(float logit, int id) const {
    const uint32_t bits = std::bit_cast<uint32_t>(logit + 0.0f);  // -0 becomes 0
    const uint32_t rising = bits >> 31 != 0 ? ~bits : bits | 0x80000000u;
    return uint64_t{~rising} << id_bits | static_cast<uint32_t>(id);
  }
  __device__ int id(uint64_t key) const { return static_cast<int>(key & ((uint64_t{1} << id_bits) - 1)); }
};

__device__ inline uint64_t warp_least(uint64_t v) {
#pragma unroll
  for (int offset = kWarp / 2; offset > 0; offset /= 2) {
    const uint64_t other = __shfl_xor_sync(kAllLanes, v, offset);
    v = other < v ? other : v;
  }
  return v;
}
__device__ inline uint64_t warp_total(uint64_t v) {
#pragma unroll
  for (int offset = kWarp / 2; offset > 0; offset /= 2) v += __shfl_xor_sync(kAllLanes, v, offset);
  return v;
}

// f(logit, column) for the columns of this thread.
template <typename F>
__device__ inline void each(const float* row, int columns, F&& f) {
  for (int begin = static_cast<int>(threadIdx.x); begin < columns; begin += kTogether * kThreads) {
    float v[kTogether];
#pragma unroll
    for (int j = 0; j < kTogether; ++j) v[j] = begin + j * kThreads < columns ? row[begin + j * kThreads] : 0.0f;
#pragma unroll
    for (int j = 0; j < kTogether; ++j) {
      if (begin + j * kThreads < columns) f(v[j], begin + j * kThreads);
    }
  }
}

// The first column of the order; -1 where a logit is not finite. All threads get it.
__device__ inline int first_of(const float* row, int columns, Order order) {
  constexpr uint64_t kNone = ~uint64_t{0};
  uint64_t least = kNone;
  bool finite = true;
  each(row, columns, [&](float logit, int i) {
    finite = finite && fabsf(logit) < INFINITY;
    const uint64_t key = order.key(logit, i);
    least = key < least ? key : least;
  });
  least = block_reduce<kThreads>(least, kNone, warp_least);
  return block_reduce<kThreads>(finite ? kNone : uint64_t{0}, kNone, warp_least) == 0 ? -1 : order.id(least);
}

struct Masses {
  const float* row;
  int columns;
  double max, temperature, unit;  // mass of a column with the largest logit

  __device__ uint64_t of(float logit) const { return static_cast<uint64_t>(exp((static_cast<double>(logit) - max) / temperature) * unit + 0.5); }
};

struct Reached {
  uint64_t key, mass;  // of the token; of it and all before it
};

// The first token whose mass, with all before it, is at least `need`, which is between 1 and the mass of all.
__device__ Reached reach(const Masses& masses, Order order, uint64_t need, uint64_t* sums) {
  __shared__ uint64_t digit_mass[kDigits];
  const int thread = static_cast<int>(threadIdx.x), warp = thread / kWarp, lane = thread % kWarp;
  Reached at{0, 0};  // the digits so far; the mass of all below them
  for (int shift = 32 + order.id_bits - kDigitBits; shift >= 0; shift -= kDigitBits) {
    for (int digit = 0; digit < kDigits; ++digit) sums[digit * kThreads + thread] = 0;
    each(masses.row, masses.columns, [&](float logit, int i) {
      const uint64_t digits = order.key(logit, i) >> shift;
      if (digits >> kDigitBits == at.key) sums[(digits & (kDigits - 1)) * kThreads + static_cast<uint64_t>(thread)] += masses.of(logit);
    });
    __syncthreads();
    if (warp < kDigits) {
      uint64_t sum = 0;
      for (int i = lane; i < kThreads; i += kWarp) sum += sums[warp * kThreads + i];
      sum = warp_total(sum);
      if (lane == 0) digit_mass[warp] = sum;
    }
    __syncthreads();
    int digit = 0;
    while (digit < kDigits - 1 && at.mass + digit_mass[digit] < need) at.mass += digit_mass[digit++];
    at.key = at.key << kDigitBits | static_cast<uint64_t>(digit);
    if (shift == 0) at.mass += digit_mass[digit];
    __syncthreads();  // before the sums are written again
  }
  return at;
}

__global__ void first_kernel(const float* logits, int64_t pitch, int columns, Order order, int32_t* tokens) {
  const int first = first_of(logits + blockIdx.x * pitch, columns, order);
  if (threadIdx.x == 0) tokens[blockIdx.x] = first;
}

__device__ inline uint64_t at_most(double value, uint64_t limit) { return value < static_cast<double>(limit) ? static_cast<uint64_t>(value) : limit; }

__global__ void __launch_bounds__(kThreads) draw_kernel(const float* logits, int64_t pitch, int columns, Order order, double temperature, double top_p, double unit,
                                                        const float* uniform, int32_t* tokens) {
  uint64_t* sums = reinterpret_cast<uint64_t*>(dynamic_shared());
  const float* row = logits + blockIdx.x * pitch;
  int token = first_of(row, columns, order);
  if (token >= 0) {
    const Masses masses{row, columns, static_cast<double>(row[token]), temperature, unit};
    uint64_t mass = 0;
    each(row, columns, [&](float logit, int) { mass += masses.of(logit); });
    mass = block_reduce<kThreads>(mass, uint64_t{0}, warp_total);
    if (top_p < 1) {
      const uint64_t line = at_most(ceil(top_p * static_cast<double>(mass)), mass);
      mass = reach(masses, order, line == 0 ? 1 : line, sums).mass;
    }
    const uint64_t target = at_most(static_cast<double>(uniform[blockIdx.x]) * static_cast<double>(mass), mass - 1);
    token = order.id(reach(masses, order, target + 1, sums).key);
  }
  if (threadIdx.x == 0) tokens[blockIdx.x] = token;
}

}  // namespace

void CudaBackend::sample(Tensor logits, float temperature, float top_p, Tensor uniform, Tensor tokens) {
  require(logits.cols > 0 && logits.cols < 1 << 30, "a vocabulary has between one token and 2^30");
  const int columns = static_cast<int>(logits.cols), bits = std::bit_width(static_cast<unsigned>(columns - 1));
  const Order order{(bits + kDigitBits - 1) / kDigitBits * kDigitBits};
  if (uniform.empty()) {
    launch("sample", first_kernel, grid_of(logits.rows), kThreads, 0, stream_, logits.as<float>(), logits.pitch, columns, order, as_row(tokens).as<int32_t>());
  } else {
    launch("sample", draw_kernel, grid_of(logits.rows), kThreads, kSumBytes, stream_, logits.as<float>(), logits.pitch, columns, order, temperature, top_p,
           static_cast<double>(uint64_t{1} << (kMassBits - bits)), as_row(uniform).as<float>(), as_row(tokens).as<int32_t>());
  }
}

}  // namespace drover::cuda
