// The functions of NCCL that are used, as a table: those of the library, which is loaded only when several GPUs are to
// speak, or a stand-in's in tests.
#pragma once
#include <nccl.h>

#include <string>

namespace drover::nccl {

struct Api {
  decltype(&ncclGetVersion) get_version = nullptr;
  decltype(&ncclGetUniqueId) get_unique_id = nullptr;
  decltype(&ncclCommInitRankConfig) init = nullptr;
  decltype(&ncclCommSplit) split = nullptr;
  decltype(&ncclCommGetAsyncError) async_error = nullptr;
  decltype(&ncclCommFinalize) finalize = nullptr;
  decltype(&ncclCommDestroy) destroy = nullptr;
  decltype(&ncclCommAbort) abort = nullptr;
  decltype(&ncclGetErrorString) error_string = nullptr;
  decltype(&ncclGetLastError) last_error = nullptr;
  decltype(&ncclAllReduce) all_reduce = nullptr;
  decltype(&ncclAllGather) all_gather = nullptr;
  decltype(&ncclBroadcast) broadcast = nullptr;
  decltype(&ncclSend) send = nullptr;
  decltype(&ncclRecv) receive = nullptr;
  decltype(&ncclGroupStart) group_start = nullptr;
  decltype(&ncclGroupEnd) group_end = nullptr;
};

// libnccl.so.2, once. Fault::bad_recipe where it cannot be loaded or is older than kOldest, with what to do.
inline constexpr int kOldest = 21800;  // communicators that are initialised without blocking, and split
const Api& library();
std::string version_of(const Api& api);  // "2.28.9"

}  // namespace drover::nccl
