// How a model's own generation_config.json has its tokens drawn where nobody asks for something else.
#pragma once
#include "kernels/base/file.h"

namespace drover {

struct GenerationDefaults {
  double temperature = 1;  // 0: greedy
  double top_p = 1;
};

// Those of DIR/generation_config.json, where it has them; bad_data naming a value that is out of range.
GenerationDefaults generation_defaults(const fs::path& directory);

}  // namespace drover
