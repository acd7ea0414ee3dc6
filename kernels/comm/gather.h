// Values of every rank, typed, over the host's control plane. All ranks run one program: a value travels as its bytes.
#pragma once
#include <algorithm>
#include <span>
#include <type_traits>

#include "kernels/base/require.h"
#include "kernels/comm/communicator.h"

namespace drover {

// Collective. Every rank's list, in rank order; the lists may be of different lengths.
template <typename T>
std::vector<std::vector<T>> gather_lists(Communicator& group, std::span<const T> mine) {
  static_assert(std::is_trivially_copyable_v<T>);
  std::vector<std::vector<T>> lists;
  const std::string sent(reinterpret_cast<const char*>(mine.data()), mine.size_bytes());
  for (const std::string& bytes : group.gather_strings(sent)) {
    require(bytes.size() % sizeof(T) == 0, "a list holds whole values");
    std::vector<T>& list = lists.emplace_back(bytes.size() / sizeof(T));
    std::copy(bytes.begin(), bytes.end(), reinterpret_cast<char*>(list.data()));
  }
  return lists;
}

// Collective. Every rank's value, in rank order.
template <typename T>
std::vector<T> gather(Communicator& group, const T& mine) {
  std::vector<T> values;
  for (const std::vector<T>& list : gather_lists(group, std::span(&mine, 1))) {
    require(list.size() == 1, "every rank gathers one value");
    values.push_back(list.front());
  }
  return values;
}

// Collective.
inline int64_t largest(Communicator& group, int64_t mine) { return std::ranges::max(gather(group, mine)); }

}  // namespace drover
