#include "launch/verbs/inference_mesh.h"

#include <algorithm>

#include "kernels/base/error.h"

namespace drover {

MeshShape inference_mesh(const ParallelSection& parallel, int ranks, const std::string& verb) {
  const int64_t pp = parallel.pp, tp = parallel.tp != 1 ? parallel.tp : std::max<int64_t>(1, ranks / pp);
  if (tp * pp != ranks) {
    fail(Fault::bad_recipe,
         "parallel.tp={} times parallel.pp={} must be the number of ranks, which is {}: {} divides the model over all "
         "of them",
         tp, pp, ranks, verb);
  }
  return {{Axis::tp, static_cast<int>(tp)}, {Axis::pp, static_cast<int>(pp)}};
}

}  // namespace drover
