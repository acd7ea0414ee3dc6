// How many answers at once, and how many tokens a second, a model carries: continuous batching played through over what
// a pass costs, until it runs evenly. Every user has one request under way and sends the next when its answer is
// complete. A pass takes the next token of every answer and up to kChunkTokens of the prompts that wait, the oldest
// first, as Batcher does (model/generation/batcher.h). The same input gives the same result. Source: Yu et al. 2022
// (Orca); Agrawal et al. 2024 (Sarathi-Serve).
#pragma once
#include <cstdint>

#include "launch/planning/pass_cost.h"

namespace drover {

inline constexpr int64_t kChunkTokens = 512;  // of prompts in a pass

struct RequestShape {
  int64_t prompt_tokens = 0, answer_tokens = 0;  // at least 1 each
};

struct Carried {
  int64_t users = 0;
  double prompt_tokens_per_second = 0, answer_tokens_per_second = 0;
  double between_tokens_seconds = 0;  // of an answer, on average
  double first_token_seconds = 0;     // from a request to its first token, on average
};

Carried serve(const PassSeconds& pass_seconds, const RequestShape& request, int64_t users);

// The most users, up to kMostUsers, whose tokens come no further apart than `between_tokens_seconds` on average and
// whose prompts and answers have room together. usage where there is not one such.
inline constexpr int64_t kMostUsers = 1024;
struct ServingLimits {
  double between_tokens_seconds = 0.05;
  int64_t room_tokens = 0;
};
enum class UsersLimit : uint8_t { room, time, count };
struct MostUsers {
  Carried carried;
  UsersLimit limit;  // why there are not more
  Carried alone;     // one user
};
MostUsers most_users(const PassSeconds& pass_seconds, const RequestShape& request, const ServingLimits& limits);

}  // namespace drover
