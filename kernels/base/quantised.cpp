#include "kernels/base/quantised.h"

namespace drover {

int64_t first_block(int64_t begin, int64_t block) { return block == 0 ? 0 : begin / block; }

int64_t blocks_touched(int64_t begin, int64_t count, int64_t block) {
  if (count == 0) return 0;
  return first_block(begin + count - 1, block) - first_block(begin, block) + 1;
}

}  // namespace drover
