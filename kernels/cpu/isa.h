// Which instructions matrix products use on this CPU: chosen once for the process. The bits of results depend on it.
#pragma once
#include <cstdint>

namespace drover::cpu {

enum class Isa : uint8_t {
  avx2,
  avx512,       // products in fp32
  avx512_bf16,  // of bf16 numbers, two at a time (VDPBF16PS)
  amx,          // tiles of them
};

// What DROVER_ISA names (avx2, avx512, avx512_bf16 or amx; Fault::usage where it is none of them or the CPU lacks it),
// else the best of the CPU. VDPBF16PS is the best only where a measurement of half a millisecond finds it faster than
// fp32 multiply-adds: CPUs that are made for AMX take twice as long for it, and virtual machines may hide AMX.
Isa isa();
const char* name_of(Isa isa);
bool has_gfni();  // for the same bits faster, where AVX-512 is used

}  // namespace drover::cpu
