// The learning rate of every step: constant, linear or cosine after a linear warm-up, as transformers' get_scheduler
// has it.  step < warm-up: step/warm-up;  linear: (total - step)/(total - warm-up);  cosine: (1 + cos(π·progress))/2.
// A constant rate warms up too. With a floor f each of the two, d, is f + (1 - f)·d, as in transformers'
// cosine_with_min_lr.
#pragma once
#include <cstdint>

#include "configs/choices.h"

namespace drover {

struct LearningRate {
  LearningRateShape shape = LearningRateShape::cosine;
  double peak = 0;
  int64_t warmup_steps = 0;
  int64_t total_steps = 0;
  double floor = 0;               // the share of the peak that linear and cosine end at
  double at(int64_t step) const;  // of the update with this index, from 0: with warm-up the first step has rate 0
  bool moves() const;             // whether it is above 0 in any of the steps
};

int64_t warmup_steps_of(double ratio, int64_t total_steps);  // ceil(ratio·steps)

}  // namespace drover
