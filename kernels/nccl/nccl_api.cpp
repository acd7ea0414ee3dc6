#include "kernels/nccl/nccl_api.h"

#include <dlfcn.h>

#include "kernels/base/error.h"

namespace drover::nccl {

namespace {

constexpr const char* kLibrary = "libnccl.so.2";

std::string text_of(int version) {
  return fmt::format("{}.{}.{}", version / 10000, version / 100 % 100, version % 100);
}

Api load() {
  void* handle = dlopen(kLibrary, RTLD_NOW | RTLD_LOCAL);
  if (handle == nullptr) {
    const char* said = dlerror();
    fail(Fault::bad_recipe,
         "NCCL cannot be loaded ({}); install {} of NCCL {} or newer, name its folder in LD_LIBRARY_PATH, or set "
         "parallel.transport: staged",
         said ? said : "no reason given", kLibrary, text_of(kOldest));
  }
  Api api;
  const auto find = [&](const char* name, auto& function) {
    function = reinterpret_cast<std::remove_reference_t<decltype(function)>>(dlsym(handle, name));
    if (function == nullptr)
      fail(Fault::bad_recipe, "{} has no {}; install NCCL {} or newer, or set parallel.transport: staged", kLibrary,
           name, text_of(kOldest));
  };
  find("ncclGetVersion", api.get_version);
  int version = 0;
  if (api.get_version(&version) != ncclSuccess || version < kOldest) {
    fail(Fault::bad_recipe, "{} is NCCL {}; install {} or newer, or set parallel.transport: staged", kLibrary,
         text_of(version), text_of(kOldest));
  }
  find("ncclGetUniqueId", api.get_unique_id);
  find("ncclCommInitRankConfig", api.init);
  find("ncclCommSplit", api.split);
  find("ncclCommGetAsyncError", api.async_error);
  find("ncclCommFinalize", api.finalize);
  find("ncclCommDestroy", api.destroy);
  find("ncclCommAbort", api.abort);
  find("ncclGetErrorString", api.error_string);
  find("ncclGetLastError", api.last_error);
  find("ncclAllReduce", api.all_reduce);
  find("ncclAllGather", api.all_gather);
  find("ncclBroadcast", api.broadcast);
  find("ncclSend", api.send);
  find("ncclRecv", api.receive);
  find("ncclGroupStart", api.group_start);
  find("ncclGroupEnd", api.group_end);
  return api;
}

}  // namespace

const Api& library() {
  static const Api api = load();
  return api;
}

std::string version_of(const Api& api) {
  int version = 0;
  api.get_version(&version);
  return text_of(version);
}

}  // namespace drover::nccl
