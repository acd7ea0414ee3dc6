// Agreement among ranks before they go on: an expected error of one becomes the error of all, and what must be equal is
// compared.
#pragma once
#include <filesystem>
#include <optional>

#include "kernels/base/error.h"
#include "kernels/comm/communicator.h"

namespace drover {

// Collective. Returns where nobody failed; else every rank throws the error of the lowest rank that has one.
void agree_or_throw(Communicator& world, const std::optional<Error>& mine);

// Runs `work` on every rank and agrees on its outcome. Only an Error, or one of the file system (io), is agreed on:
// anything else propagates, and the caller aborts the job.
template <typename Work>
void together(Communicator& world, Work&& work) {
  std::optional<Error> error;
  try {
    work();
  } catch (const Error& e) {
    if (e.fault() == Fault::rank_hangs || e.fault() == Fault::rank_lost) throw;  // there is nobody to agree with
    error = e;
  } catch (const std::filesystem::filesystem_error& e) {
    error = Error(Fault::io, e.what());
  }
  agree_or_throw(world, error);
}

// Collective. Fails on every rank with bad_recipe naming the ranks whose value differs from the most common one.
// `label`: "the recipe", "the program".
void check_same(Communicator& world, const std::string& label, const std::string& value);

std::string list_ranks(const std::vector<int>& ranks);  // "3", "1, 2 and 5"; long lists are cut short

}  // namespace drover
