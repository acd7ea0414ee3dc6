#include "kernels/cpu/isa.h"

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <limits>
#include <oneapi/dnnl/dnnl.hpp>
#include <string_view>

#include "kernels/base/error.h"
#include "kernels/cpu/intrinsics.h"

namespace drover::cpu {

namespace {

struct Choice {
  Isa isa;
  const char* name;
  dnnl::cpu_isa most;  // what oneDNN may use
};
constexpr Choice kChoices[] = {
    {Isa::avx2, "avx2", dnnl::cpu_isa::avx2},
    {Isa::avx512, "avx512", dnnl::cpu_isa::avx512_core},
    {Isa::avx512_bf16, "avx512_bf16", dnnl::cpu_isa::avx512_core_bf16},
    {Isa::amx, "amx", dnnl::cpu_isa::avx512_core_amx},
};

// Sets of feature bits. oneDNN asks Linux for AMX's tiles here; without that the first use of one ends the process.
bool has(dnnl::cpu_isa wanted) {
  const auto bits = static_cast<unsigned>(wanted);
  return (static_cast<unsigned>(dnnl::get_effective_cpu_isa()) & bits) == bits;
}

#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512bf16")
__m512 multiply_add(__m512 sum, __m512 x) { return _mm512_fmadd_ps(x, x, sum); }
__m512 dot_pairs(__m512 sum, __m512 x) {
  return _mm512_dpbf16_ps(sum, reinterpret_cast<__m512bh>(x), reinterpret_cast<__m512bh>(x));
}

// Of many such steps on twelve sums, which keep the ports busy: the least of a few attempts.
template <__m512 (*step)(__m512, __m512)>
double seconds_of() {
  double least = std::numeric_limits<double>::max();
  for (int attempt = 0; attempt < 8; ++attempt) {
    __m512 a[12], x = _mm512_setzero_ps();
#pragma GCC unroll 12
    for (__m512& sum : a) sum = x;
    const auto begin = std::chrono::steady_clock::now();
    for (int round = 0; round < 1000; ++round) {
#pragma GCC unroll 12
      for (__m512& sum : a) sum = step(sum, x);
      asm volatile(""
                   : "+v"(a[0]), "+v"(a[1]), "+v"(a[2]), "+v"(a[3]), "+v"(a[4]), "+v"(a[5]), "+v"(a[6]), "+v"(a[7]),
                     "+v"(a[8]), "+v"(a[9]), "+v"(a[10]), "+v"(a[11]), "+v"(x));
    }
    least = std::min(least, std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
  }
  return least;
}

bool bf16_products_are_faster() {
  // It does twice as much, and nothing is converted for it.
  return seconds_of<dot_pairs>() < 2.5 * seconds_of<multiply_add>();
}
#pragma GCC pop_options

Isa named(std::string_view name) {
  const auto* choice = std::ranges::find(kChoices, name, &Choice::name);
  if (choice == std::end(kChoices)) {
    fail(Fault::usage, "DROVER_ISA={}: allowed are avx2, avx512, avx512_bf16 and amx", name);
  }
  if (!has(choice->most)) fail(Fault::usage, "DROVER_ISA={}: this CPU does not have these instructions", name);
  dnnl::set_max_cpu_isa(choice->most);  // nothing has been multiplied yet
  return choice->isa;
}

Isa best() {
  if (const char* name = std::getenv("DROVER_ISA")) return named(name);
  if (has(dnnl::cpu_isa::avx512_core_amx)) return Isa::amx;
  if (has(dnnl::cpu_isa::avx512_core_bf16) && bf16_products_are_faster()) return Isa::avx512_bf16;
  return has(dnnl::cpu_isa::avx512_core) ? Isa::avx512 : Isa::avx2;
}

}  // namespace

Isa isa() {
  static const Isa chosen = best();
  return chosen;
}

bool has_gfni() {
  static const bool there = __builtin_cpu_supports("gfni");
  return there;
}

const char* name_of(Isa isa) { return std::ranges::find(kChoices, isa, &Choice::isa)->name; }

}  // namespace drover::cpu
