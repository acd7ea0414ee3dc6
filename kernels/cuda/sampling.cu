// The choice of the next token without a sort: a token's place in the order is a number (its key), and the token at
// which the mass reaches a line is found from the key's highest digit down, by summing the masses of every digit.
// Masses are fixed-point integers: their sums do not depend on the order. One block a row. Every thread has sums of its
// own in shared memory, so that no two threads write to one place.
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

// What `reach` sums: a token's mass, or one for each.
struct Masses {
  const float* row;
  int columns;
  double max, temperature, unit;  // mass of a column with the largest logit

  __device__ uint64_t of(float logit) const {
    return static_cast<uint64_t>(exp((static_cast<double>(logit) - max) / temperature) * unit + 0.5);
  }
};

struct Ones {
  const float* row;
  int columns;
  __device__ uint64_t of(float) const { return 1; }
};

struct Reached {
  uint64_t key, mass;  // of the token; of it and all before it
};

// The first token whose mass, with all before it, is at least `need`, which is between 1 and the mass of all.
template <typename Weights>
__device__ Reached reach(const Weights& masses, Order order, uint64_t need, uint64_t* sums) {
  __shared__ uint64_t digit_mass[kDigits];
  const int thread = static_cast<int>(threadIdx.x), warp = thread / kWarp, lane = thread % kWarp;
  Reached at{0, 0};  // the digits so far; the mass of all below them
  for (int shift = 32 + order.id_bits - kDigitBits; shift >= 0; shift -= kDigitBits) {
    for (int digit = 0; digit < kDigits; ++digit) sums[digit * kThreads + thread] = 0;
    each(masses.row, masses.columns, [&](float logit, int i) {
      const uint64_t digits = order.key(logit, i) >> shift;
      if (digits >> kDigitBits == at.key)
        sums[(digits & (kDigits - 1)) * kThreads + static_cast<uint64_t>(thread)] += masses.of(logit);
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

__device__ inline uint64_t at_most(double value, uint64_t limit) {
  return value < static_cast<double>(limit) ? static_cast<uint64_t>(value) : limit;
}

__global__ void __launch_bounds__(kThreads)
    sample_kernel(const float* logits, int64_t pitch, int columns, Order order, double unit, const float* choices,
                  int64_t choice_pitch, int32_t* tokens, int64_t token_pitch) {
  uint64_t* sums = reinterpret_cast<uint64_t*>(dynamic_shared());
  const float* row = logits + blockIdx.x * pitch;
  const float* choice = choices + blockIdx.x * choice_pitch;
  const double temperature = choice[0], top_p = choice[1], min_p = choice[3], uniform = choice[4];
  const int top_k = static_cast<int>(choice[2]);
  int token = first_of(row, columns, order);
  if (token >= 0 && temperature > 0) {
    const double max = static_cast<double>(row[token]);
    const Masses masses{row, columns, max, temperature, unit};
    uint64_t last = ~uint64_t{0};  // of the keys that top_k keeps
    if (top_k > 0 && top_k < columns) {
      last = reach(Ones{row, columns}, order, static_cast<uint64_t>(top_k), sums).key;
    }
    uint64_t mass = 0;
    each(row, columns, [&](float logit, int i) {
      const bool likely = min_p <= 0 || exp((static_cast<double>(logit) - max) / temperature) >= min_p;
      if (likely && order.key(logit, i) <= last) mass += masses.of(logit);
    });
    mass = block_reduce<kThreads>(mass, uint64_t{0}, warp_total);
    if (top_p < 1) {
      const uint64_t line = at_most(ceil(top_p * static_cast<double>(mass)), mass);
      mass = reach(masses, order, line == 0 ? 1 : line, sums).mass;
    }
    const uint64_t target = at_most(uniform * static_cast<double>(mass), mass - 1);
    token = order.id(reach(masses, order, target + 1, sums).key);
  }
  if (threadIdx.x == 0) tokens[blockIdx.x * token_pitch] = token;
}

__global__ void penalize_kernel(float* logits, int64_t pitch, const int32_t* places, int64_t place_pitch,
                                const float* changes, int64_t change_pitch, int64_t count) {
  const int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (i >= count) return;
  const int32_t* place = places + i * place_pitch;
  const float* change = changes + i * change_pitch;
  float& logit = logits[place[0] * pitch + place[1]];
  const float biased = logit + change[0];
  logit = (biased > 0 ? biased / change[1] : biased * change[1]) - change[2];
}

__global__ void allow_kernel(float* logits, int64_t pitch, int columns, const int32_t* rows, int64_t row_pitch,
                             const int32_t* bits, int64_t bit_pitch) {
  const int column = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (column >= columns) return;
  const uint32_t word = static_cast<uint32_t>(bits[blockIdx.y * bit_pitch + column / kBitsPerWord]);
  if ((word >> (column % kBitsPerWord) & 1) != 0) return;
  float& logit = logits[rows[blockIdx.y * row_pitch] * pitch + column];
  if (fabsf(logit) < INFINITY) logit = kForbiddenLogit;
}

// The next column of the order behind `key`, `order`'s first one where that is 0.
__device__ inline uint64_t next_key(const float* row, int columns, Order order, uint64_t key) {
  constexpr uint64_t kNone = ~uint64_t{0};
  uint64_t least = kNone;
  each(row, columns, [&](float logit, int i) {
    const uint64_t k = order.key(logit, i);
    if (k > key && k < least) least = k;
  });
  return block_reduce<kThreads>(least, kNone, warp_least);
}

__global__ void __launch_bounds__(kThreads)
    log_probability_kernel(const float* logits, int64_t pitch, int columns, Order order, const int32_t* tokens,
                           int64_t token_pitch, float* values, int64_t value_pitch, int32_t* top, int64_t top_pitch,
                           float* top_values, int64_t top_value_pitch, int k) {
  const float* row = logits + blockIdx.x * pitch;
  const int first = first_of(row, columns, order);
  double log_sum = NAN;
  if (first >= 0) {
    const double max = static_cast<double>(row[first]);
    double sum = 0;
    each(row, columns, [&](float logit, int) { sum += exp(static_cast<double>(logit) - max); });
    log_sum = max + log(block_sum<kThreads>(sum));
  }
  const auto log_p = [&](int column) {
    return first < 0 ? NAN : static_cast<float>(static_cast<double>(row[column]) - log_sum);
  };
  if (threadIdx.x == 0) {
    values[blockIdx.x * value_pitch] = first < 0 ? NAN : log_p(tokens[blockIdx.x * token_pitch]);
  }
  uint64_t key = 0;
  for (int i = 0; i < k; ++i) {
    if (first >= 0) key = i == 0 ? order.key(row[first], first) : next_key(row, columns, order, key);
    if (threadIdx.x != 0) continue;
    const int id = first < 0 ? -1 : order.id(key);
    top[blockIdx.x * top_pitch + i] = id;
    top_values[blockIdx.x * top_value_pitch + i] = log_p(id);
  }
}

Order order_of(int64_t columns) {
  require(columns > 0 && columns < 1 << 30, "a vocabulary has between one token and 2^30");
  const int bits = std::bit_width(static_cast<unsigned>(columns - 1));
  return {(bits + kDigitBits - 1) / kDigitBits * kDigitBits};
}

}  // namespace

void CudaBackend::do_sample(Tensor logits, Tensor choices, Tensor tokens) {
  const Order order = order_of(logits.cols);
  const int bits = std::bit_width(static_cast<unsigned>(logits.cols - 1));
  launch("sample", sample_kernel, grid_of(logits.rows), kThreads, kSumBytes, stream_, logits.as<float>(), logits.pitch,
         static_cast<int>(logits.cols), order, static_cast<double>(uint64_t{1} << (kMassBits - bits)),
         choices.as<float>(), choices.pitch, tokens.as<int32_t>(), tokens.pitch);
}

void CudaBackend::do_penalize(Tensor logits, Tensor places, Tensor changes) {
  constexpr int kPenaltyThreads = 256;
  if (places.rows == 0) return;
  launch("penalize", penalize_kernel, grid_of(places.rows, kPenaltyThreads), kPenaltyThreads, 0, stream_,
         logits.as<float>(), logits.pitch, places.as<int32_t>(), places.pitch, changes.as<float>(), changes.pitch,
         places.rows);
}

void CudaBackend::do_allow(Tensor logits, Tensor rows, Tensor bits) {
  constexpr int kColumns = 256;  // of a block
  launch("allow", allow_kernel, dim3(grid_of(logits.cols, kColumns), grid_of(bits.rows)), kColumns, 0, stream_,
         logits.as<float>(), logits.pitch, static_cast<int>(logits.cols), rows.as<int32_t>(), rows.pitch,
         bits.as<int32_t>(), bits.pitch);
}

void CudaBackend::do_log_probabilities(Tensor logits, Tensor tokens, Tensor values, Tensor top, Tensor top_values) {
  launch("log_probabilities", log_probability_kernel, grid_of(logits.rows), kThreads, 0, stream_, logits.as<float>(),
         logits.pitch, static_cast<int>(logits.cols), order_of(logits.cols), tokens.as<int32_t>(), tokens.pitch,
         values.as<float>(), values.pitch, static_cast<int32_t*>(top.data), top.pitch,
         static_cast<float*>(top_values.data), top_values.pitch, static_cast<int>(top.cols));
}

}  // namespace drover::cuda
