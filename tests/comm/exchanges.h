// What every communicator must do, checked on all ranks of a group against values that each rank can compute for all
// others. `check_everything` fails with internal naming the exchange that failed.
#pragma once
#include <cstring>
#include <vector>

#include "kernels/base/error.h"
#include "kernels/comm/communicator.h"

namespace drover {

inline double drawn_value(int rank, int64_t i) {
  // Of very different sizes, so that another order of summation gives other bits.
  uint64_t h = (static_cast<uint64_t>(i) * 64 + static_cast<uint64_t>(rank) + 1) * 0x9E3779B97F4A7C15u;
  h = (h ^ (h >> 32)) * 0xD6E8FEB86659FD93u;
  const double u = static_cast<double>(h >> 40) * 0x1p-24 - 0.5;
  return i % 3 == 0 ? u * 1e4 : i % 3 == 1 ? u : u * 1e-3;
}

template <typename T>
T drawn_element(int rank, int64_t i) {
  if constexpr (std::is_same_v<T, int32_t>) return static_cast<int32_t>(rank * 1000003 + i);
  if constexpr (std::is_same_v<T, double>) return drawn_value(rank, i);
  if constexpr (!std::is_same_v<T, int32_t> && !std::is_same_v<T, double>)
    return T(static_cast<float>(drawn_value(rank, i)));
}

// A tensor with guarded padding behind every row.
template <typename T>
class Padded {
 public:
  Padded(int64_t rows, int64_t cols, int64_t padding) : memory_(static_cast<size_t>(rows * (cols + padding)), guard()) {
    tensor = {memory_.data(), rows, cols, cols + padding, dtype_of<T>(), Where::host};
  }
  T& at(int64_t i) {
    if (tensor.pitch == tensor.cols) return memory_[static_cast<size_t>(i)];
    return memory_[static_cast<size_t>(i / tensor.cols * tensor.pitch + i % tensor.cols)];
  }
  void draw(int rank) {
    for (int64_t i = 0; i < tensor.size(); ++i) at(i) = drawn_element<T>(rank, i);
  }
  bool guarded() const {
    if (tensor.pitch == tensor.cols) return true;
    const T g = guard();
    for (int64_t i = 0; i < static_cast<int64_t>(memory_.size()); ++i) {
      if (i % tensor.pitch >= tensor.cols && std::memcmp(&memory_[static_cast<size_t>(i)], &g, sizeof g) != 0)
        return false;
    }
    return true;
  }
  Tensor tensor;

 private:
  static T guard() { return drawn_element<T>(99, 99); }
  std::vector<T> memory_;
};

template <typename T>
bool same_bits(const T& a, const T& b) {
  return std::memcmp(&a, &b, sizeof a) == 0;
}

inline void expect(bool right, const Communicator& c, const std::string& what) {
  if (!right) fail(Fault::internal, "{}, rank {} of {}: {} failed", c.axis(), c.rank(), c.size(), what);
}

struct Extent {
  int64_t rows, cols, padding;
};

// Around the shares of 2, 3, 4 and 8 ranks, the limit of one round (64 KiB), 1 MB and the piece of 4 MB.
inline const std::vector<Extent> kSmall = {{0, 3, 0}, {1, 1, 0},   {1, 2, 0},    {3, 1, 0},     {7, 1, 0},
                                           {5, 3, 2}, {64, 16, 0}, {4097, 1, 0}, {128, 129, 7}, {16385, 1, 0}};
inline const std::vector<Extent> kLarge = {{300007, 1, 0}, {1100, 1001, 0}, {1100, 1001, 11}};

template <typename T, typename Sum>
void check_all_reduce(Communicator& c, const std::vector<Extent>& extents) {
  for (const Extent& e : extents) {
    const std::string what =
        fmt::format("all_reduce of {} ({}, {}), padding {}", name_of(dtype_of<T>()), e.rows, e.cols, e.padding);
    Padded<T> x(e.rows, e.cols, e.padding);
    x.draw(c.rank());
    c.all_reduce(x.tensor);
    for (int64_t i = 0; i < x.tensor.size(); ++i) {
      Sum sum = static_cast<Sum>(drawn_element<T>(0, i));
      for (int r = 1; r < c.size(); ++r) sum += static_cast<Sum>(drawn_element<T>(r, i));
      if (!same_bits(x.at(i), T(sum))) expect(false, c, fmt::format("{}: element {}", what, i));
    }
    expect(x.guarded(), c, what + ": padding");
  }
}

template <typename T>
void check_all_gather(Communicator& c, const std::vector<Extent>& extents) {
  for (const Extent& e : extents) {
    for (const bool in_place : {false, true}) {
      const std::string what =
          fmt::format("all_gather of {} ({}, {}), padding {}", name_of(dtype_of<T>()), e.rows, e.cols, e.padding);
      Padded<T> part(e.rows, e.cols, e.padding), whole(e.rows * c.size(), e.cols, in_place ? e.padding : e.padding / 2);
      part.draw(c.rank());
      const int64_t n = part.tensor.size();
      if (in_place) {
        for (int64_t i = 0; i < n; ++i) whole.at(c.rank() * n + i) = part.at(i);
      }
      c.all_gather(in_place ? whole.tensor.rows_from(c.rank() * e.rows, e.rows) : part.tensor, whole.tensor);
      for (int64_t i = 0; i < whole.tensor.size(); ++i) {
        if (!same_bits(whole.at(i), drawn_element<T>(static_cast<int>(i / n), i % n)))
          expect(false, c, fmt::format("{}: element {}", what, i));
      }
      expect(whole.guarded(), c, what + ": padding");
    }
  }
}

template <typename T>
void check_broadcast(Communicator& c, const std::vector<Extent>& extents) {
  for (int root = 0; root < c.size(); ++root) {
    for (const Extent& e : extents) {
      const std::string what =
          fmt::format("broadcast of {} ({}, {}) from {}", name_of(dtype_of<T>()), e.rows, e.cols, root);
      Padded<T> x(e.rows, e.cols, c.rank() % 2 == 0 ? e.padding : 1);  // pitches may differ from rank to rank
      x.draw(c.rank());
      c.broadcast(x.tensor, root);
      for (int64_t i = 0; i < x.tensor.size(); ++i) expect(same_bits(x.at(i), drawn_element<T>(root, i)), c, what);
      expect(x.guarded(), c, what + ": padding");
    }
  }
}

inline void check_messages(Communicator& c) {
  if (c.size() == 1) return;
  const int next = (c.rank() + 1) % c.size(), previous = (c.rank() + c.size() - 1) % c.size();
  for (const int64_t n : {int64_t{1}, int64_t{1000}, int64_t{1} << 20, (int64_t{5} << 18) + 3}) {
    // Two messages each way, received in the other order, all posted before any is waited for.
    Padded<float> a(n, 1, 0), b(n, 1, 0), from_previous(n, 1, 0), from_next(n, 1, 0), again(n, 1, 0);
    a.draw(c.rank());
    b.draw(c.rank() + 50);
    std::vector<std::unique_ptr<Transfer>> sends;
    sends.push_back(c.send(a.tensor, next, 4));
    sends.push_back(c.send(b.tensor, next, 65535));
    sends.push_back(c.send(b.tensor, previous, 6));
    auto second = c.receive(again.tensor, previous, 65535);
    auto first = c.receive(from_previous.tensor, previous, 4);
    auto third = c.receive(from_next.tensor, next, 6);
    third->wait();
    second->wait();
    first->wait();
    first->wait();  // returns at once
    for (auto& s : sends) s->wait();
    for (int64_t i = 0; i < n; ++i) {
      const bool right = from_previous.at(i) == drawn_element<float>(previous, i) &&
                         again.at(i) == drawn_element<float>(previous + 50, i) &&
                         from_next.at(i) == drawn_element<float>(next + 50, i);
      if (!right) expect(false, c, fmt::format("sending {} elements", n));
    }
  }
}

inline void check_strings(Communicator& c) {
  const auto text_of = [](int rank, size_t size) { return std::string(size, static_cast<char>('a' + rank % 26)); };
  for (const size_t size : {size_t{0}, size_t{5}, size_t{700'000}}) {
    const auto size_on = [&](int rank) { return size * static_cast<size_t>((rank + 1) % 3); };  // also empty ones
    const std::vector<std::string> all = c.gather_strings(text_of(c.rank(), size_on(c.rank())));
    expect(static_cast<int>(all.size()) == c.size(), c, "gather_strings: count");
    for (int r = 0; r < c.size(); ++r)
      expect(all[static_cast<size_t>(r)] == text_of(r, size_on(r)), c, fmt::format("gather_strings: that of {}", r));
  }
}

inline void check_everything(Communicator& c) {
  for (const auto* extents : {&kSmall, &kLarge}) {
    check_all_reduce<float, float>(c, *extents);
    check_all_reduce<bf16, float>(c, *extents);
    check_all_reduce<double, double>(c, *extents);
  }
  check_all_gather<float>(c, kSmall);
  check_all_gather<bf16>(c, kSmall);
  check_all_gather<double>(c, kSmall);
  check_all_gather<int32_t>(c, kLarge);
  check_broadcast<bf16>(c, kSmall);
  check_broadcast<int32_t>(c, {kLarge.back()});
  c.barrier();
  check_messages(c);
  check_strings(c);
  c.barrier();
}

inline void check_briefly(Communicator& c) {
  check_all_reduce<float, float>(c, kSmall);
  check_all_gather<bf16>(c, kSmall);
  check_broadcast<double>(c, kSmall);
  check_messages(c);
  check_strings(c);
}

}  // namespace drover
