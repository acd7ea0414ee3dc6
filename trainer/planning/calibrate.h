// Measures this machine: real steps of small made-up models, and passes of generation, each op timed as a run's are;
// messages among the ranks; the disk. Shapes, lengths, ranks of adapters and weight formats vary, so that what a plan
// asks for has neighbours.
#pragma once
#include <functional>

#include "kernels/comm/device.h"
#include "trainer/planning/calibration.h"
#include "trainer/planning/made_model.h"

namespace drover {

// Prompts in passes of `pass` tokens, then single tokens of 1, 2, 4 … sequences behind each of `contexts` tokens.
struct MadePasses {
  MadeModel model;
  WeightsAs weights = WeightsAs::dense;
  std::vector<int64_t> contexts;  // ascending
  int64_t sequences = 8;
  int64_t pass = 512;
};

struct Measurements {
  struct Steps {
    MadeStep step;
    int times = 1;  // after a first one
  };
  std::vector<Steps> steps;
  std::vector<MadePasses> passes;
};
// What a CPU, or a device with memory of its own, measures in less than two minutes.
Measurements usual_measurements(bool own_memory);

// Collective over the device's world, whose ranks compute at the same time. `said` is called with what is about to be
// measured.
Calibration calibrate(const Device& device, const MeasuredMachine& machine, const Measurements& measurements,
                      const std::function<void(const std::string&)>& said);

}  // namespace drover
