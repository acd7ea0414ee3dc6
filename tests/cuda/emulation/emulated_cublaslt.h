// What the stand-in for cuBLASLt was asked for, for tests.
#pragma once
#include <cublasLt.h>

#include <cstdint>

namespace drover::cuda::emulation {

struct LtRecord {
  int64_t heuristics = 0, products = 0;  // calls
  uint32_t reduction_mask = 0;           // of the last heuristics
  uint32_t alignment = 0;
  int algorithm = 0;  // of the last product
  uint32_t reduction = 0;
};
extern LtRecord lt_record;

enum : int { lt_in_place = 1, lt_plain = 4, lt_workspace_too_large = 5, lt_split = 6 };
cublasLtMatmulAlgo_t lt_algorithm(int id);

}  // namespace drover::cuda::emulation
