// The routes that make the model answer. On the request thread; they reply when the answer is there, or as it grows.
#pragma once
#include "launch/serve/serving.h"

namespace drover {

void answer_chat(Serving& serving, Call call);
void answer_completion(Serving& serving, Call call);

}  // namespace drover
