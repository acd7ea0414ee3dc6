// The few documents over which a trained adapter is compared with what was written of it: the first of validation, or,
// without one, of the first training step. The same of a run, whoever asks.
#pragma once
#include "trainer/setup/inputs.h"

namespace drover {

inline constexpr int64_t kComparedTokens = 512;  // at most, trained or not

// Each a row of its own. They are cut at kComparedTokens in all, and each at one token less than the data's longest, so
// that the generation path of a replica that was planned for these data has a position left. Documents without a
// trained token are left out; there may be none.
std::string rows_compared(const Recipe& recipe);  // "validation", "training"
TokenStore compared_documents(const Recipe& recipe, const PreparedData& data);

}  // namespace drover
