#include "tests/nccl/fake_nccl.h"

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstring>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "kernels/base/bf16.h"
#include "streams.h"
#include "tests/nccl/on_device.h"

// What all ranks of one communicator share.
struct Hub {
  explicit Hub(int n) : size(n) {}
  int size, came = 0;
  struct Call {
    std::string what;
    std::vector<const void*> from;
    std::vector<void*> to;
    int count = 0;
    bool done = false;
  };
  std::map<int64_t, Call> calls;
  struct Parcel {
    const void* data;
    size_t bytes;
    std::shared_ptr<bool> taken;
  };
  std::map<std::pair<int, int>, std::list<Parcel>> parcels;  // (from, to) → sent and not received, in order
  std::map<int64_t, std::map<int, std::shared_ptr<Hub>>> splits;
  std::map<int64_t, std::map<int, std::vector<std::pair<int, int>>>> members;  // of split n, by color: (key, rank)
  std::map<int64_t, int> split_calls;
};

struct ncclComm {
  std::shared_ptr<Hub> hub;
  int rank = 0;
  int64_t calls = 0, splits = 0;
  bool aborted = false;
  std::shared_ptr<Hub> parent;  // of a split that is not complete yet
  ncclComm_t* late =
      nullptr;  // where the handle of a split child will be written, when the state has been asked for late_by times
  ncclComm_t late_handle = nullptr;
  int late_by = 0;
  int64_t split_number = 0;
  int color = 0, key = 0, parent_rank = 0;
};

namespace drover::nccl {

namespace {

std::mutex mutex;
std::condition_variable changed;
std::map<std::string, std::shared_ptr<Hub>> hubs;
std::atomic<int64_t> ids = 0, calls = 0, aborts = 0;
std::atomic<bool> remote_error = false;

struct Part {  // of a group
  bool sends;
  const void* from;
  void* to;
  size_t bytes;
  int peer;
};
struct Group {
  int depth = 0;
  ncclComm_t comm = nullptr;
  cudaStream_t stream = nullptr;
  std::vector<Part> parts;
};
thread_local Group group;

size_t bytes_of(ncclDataType_t type) { return type == ncclBfloat16 ? 2 : type == ncclFloat64 ? 8 : 4; }

template <typename Ready>
bool wait(ncclComm_t comm, std::unique_lock<std::mutex>& lock, Ready&& ready) {
  changed.wait(lock, [&] { return comm->aborted || ready(); });
  return !comm->aborted;
}

// The call of this number on all ranks; `work` sees where everyone reads and writes.
void collective(ncclComm_t comm, cudaStream_t stream, const std::string& what, const void* from, void* to,
                std::function<void(const std::vector<const void*>&, const std::vector<void*>&)> work) {
  ++calls;
  const int64_t number = comm->calls++;
  cuda::emulation::enqueue(stream, [=] {
    std::unique_lock lock(mutex);
    if (comm->aborted) return;
    Hub::Call& call = comm->hub->calls[number];
    call.from.resize(static_cast<size_t>(comm->hub->size));
    call.to.resize(call.from.size());
    if (call.what.empty()) call.what = what;
    if (call.what != what) std::abort();  // the ranks make different calls
    call.from[static_cast<size_t>(comm->rank)] = from;
    call.to[static_cast<size_t>(comm->rank)] = to;
    if (++call.count == comm->hub->size) {
      work(call.from, call.to);
      call.done = true;
      changed.notify_all();
    }
    wait(comm, lock, [&] { return call.done; });
  });
}

template <typename T, typename Sum>
void sum_all(size_t count, const std::vector<const void*>& from, const std::vector<void*>& to) {
  std::vector<T> result(count);
  for (size_t i = 0; i < count; ++i) {
    Sum sum = 0;
    // Backwards and rounded at every rank, as a ring may do it.
    for (size_t r = from.size(); r-- > 0;)
      sum = static_cast<Sum>(T(sum + static_cast<Sum>(static_cast<const T*>(from[r])[i])));
    result[i] = T(sum);
  }
  for (void* out : to) std::memcpy(out, result.data(), count * sizeof(T));
}

ncclResult_t get_version(int* version) {
  *version = NCCL_VERSION_CODE;
  return ncclSuccess;
}
ncclResult_t get_unique_id(ncclUniqueId* id) {
  std::memset(id->internal, 0, sizeof id->internal);
  std::snprintf(id->internal, sizeof id->internal, "id %lld", static_cast<long long>(++ids));
  return ncclSuccess;
}
ncclResult_t init(ncclComm_t* comm, int size, ncclUniqueId id, int rank, ncclConfig_t* config) {
  if (config->blocking != 0) return ncclInvalidArgument;
  const std::lock_guard lock(mutex);
  auto& hub = hubs[id.internal];
  if (!hub) hub = std::make_shared<Hub>(size);
  ++hub->came;
  *comm = new ncclComm{.hub = hub, .rank = rank};
  return ncclInProgress;
}
ncclResult_t split(ncclComm_t parent, int color, int key, ncclComm_t* comm, ncclConfig_t*) {
  const std::lock_guard lock(mutex);
  const int64_t number = parent->splits++;
  parent->hub->members[number][color].emplace_back(key, parent->rank);
  ++parent->hub->split_calls[number];
  parent->late = comm;
  parent->late_handle = new ncclComm{
      .parent = parent->hub, .split_number = number, .color = color, .key = key, .parent_rank = parent->rank};
  parent->late_by = 3;
  return ncclInProgress;
}
ncclResult_t async_error(ncclComm_t comm, ncclResult_t* error) {
  const std::lock_guard lock(mutex);
  *error = ncclSuccess;
  if (comm == nullptr) return ncclInvalidArgument;
  if (remote_error) *error = ncclRemoteError;
  if (comm->late != nullptr && --comm->late_by == 0) *std::exchange(comm->late, nullptr) = comm->late_handle;
  if (comm->parent) {
    if (comm->parent->split_calls[comm->split_number] < comm->parent->size) {
      *error = ncclInProgress;
      return ncclSuccess;
    }
    auto& members = comm->parent->members[comm->split_number][comm->color];
    auto& hub = comm->parent->splits[comm->split_number][comm->color];
    if (!hub) {
      std::sort(members.begin(), members.end());
      hub = std::make_shared<Hub>(static_cast<int>(members.size()));
      hub->came = hub->size;
    }
    comm->hub = hub;
    comm->rank = static_cast<int>(std::find(members.begin(), members.end(), std::pair(comm->key, comm->parent_rank)) -
                                  members.begin());
    comm->parent.reset();
  } else if (comm->hub->came < comm->hub->size) {
    *error = ncclInProgress;
  }
  return ncclSuccess;
}
ncclResult_t finalize(ncclComm_t) { return ncclSuccess; }
ncclResult_t destroy(ncclComm_t comm) {
  delete comm;
  return ncclSuccess;
}
ncclResult_t abort_comm(ncclComm_t comm) {
  const std::lock_guard lock(mutex);
  comm->aborted = true;  // kept: its calls may still look at it
  ++aborts;
  changed.notify_all();
  return ncclSuccess;
}
const char* error_string(ncclResult_t result) {
  return result == ncclRemoteError ? "remote process exited" : "an error of the stand-in";
}
const char* last_error(ncclComm_t) { return ""; }

ncclResult_t all_reduce(const void* from, void* to, size_t count, ncclDataType_t type, ncclRedOp_t, ncclComm_t comm,
                        cudaStream_t stream) {
  collective(comm, stream, "all_reduce " + std::to_string(count) + " " + std::to_string(type), from, to,
             [=](const auto& all_from, const auto& all_to) {
               if (type == ncclBfloat16) sum_all<bf16, float>(count, all_from, all_to);
               if (type == ncclFloat32) sum_all<float, float>(count, all_from, all_to);
               if (type == ncclFloat64) sum_all<double, double>(count, all_from, all_to);
             });
  return ncclInProgress;
}
ncclResult_t all_gather(const void* from, void* to, size_t count, ncclDataType_t type, ncclComm_t comm,
                        cudaStream_t stream) {
  const size_t bytes = count * bytes_of(type);
  collective(comm, stream, "all_gather " + std::to_string(bytes), from, to,
             [=](const auto& all_from, const auto& all_to) {
               for (size_t r = 0; r < all_from.size(); ++r) {
                 for (void* out : all_to) std::memmove(static_cast<char*>(out) + r * bytes, all_from[r], bytes);
               }
             });
  return ncclSuccess;
}
ncclResult_t broadcast(const void* from, void* to, size_t count, ncclDataType_t type, int root, ncclComm_t comm,
                       cudaStream_t stream) {
  collective(comm, stream, "broadcast " + std::to_string(count) + " from " + std::to_string(root), from, to,
             [=](const auto& all_from, const auto& all_to) {
               for (void* out : all_to) std::memmove(out, all_from[static_cast<size_t>(root)], count * bytes_of(type));
             });
  return ncclSuccess;
}

ncclResult_t group_start() {
  ++group.depth;
  return ncclSuccess;
}
// Everything of the group proceeds together; the group ends with the last.
ncclResult_t group_end() {
  if (--group.depth > 0 || group.parts.empty()) return ncclSuccess;
  const ncclComm_t comm = group.comm;
  ++calls;
  cuda::emulation::enqueue(group.stream, [comm, parts = std::move(group.parts)] {
    std::unique_lock lock(mutex);
    if (comm->aborted) return;
    Hub& hub = *comm->hub;
    std::vector<std::shared_ptr<bool>> sent;
    for (const Part& p : parts) {
      if (!p.sends) continue;
      sent.push_back(std::make_shared<bool>(false));
      hub.parcels[{comm->rank, p.peer}].push_back({p.from, p.bytes, sent.back()});
    }
    changed.notify_all();
    std::vector<bool> received(parts.size());
    wait(comm, lock, [&] {
      bool all = true;
      for (size_t i = 0; i < parts.size(); ++i) {
        const Part& p = parts[i];
        if (p.sends || received[i]) continue;
        auto& waiting = hub.parcels[{p.peer, comm->rank}];
        if (waiting.empty()) {
          all = false;
          continue;
        }
        if (waiting.front().bytes != p.bytes) std::abort();  // the ends do not agree on a size
        std::memcpy(p.to, waiting.front().data, p.bytes);
        *waiting.front().taken = true;
        waiting.pop_front();
        received[i] = true;
        changed.notify_all();
      }
      for (const auto& s : sent) all &= *s;
      return all;
    });
  });
  group.parts.clear();
  return ncclInProgress;
}
ncclResult_t point_to_point(bool sends, const void* from, void* to, size_t bytes, int peer, ncclComm_t comm,
                            cudaStream_t stream) {
  group_start();
  group.comm = comm;
  group.stream = stream;
  group.parts.push_back({sends, from, to, bytes, peer});
  return group_end();
}
ncclResult_t send(const void* data, size_t count, ncclDataType_t type, int peer, ncclComm_t comm, cudaStream_t stream) {
  return point_to_point(true, data, nullptr, count * bytes_of(type), peer, comm, stream);
}
ncclResult_t receive(void* data, size_t count, ncclDataType_t type, int peer, ncclComm_t comm, cudaStream_t stream) {
  return point_to_point(false, nullptr, data, count * bytes_of(type), peer, comm, stream);
}

}  // namespace

const Api& fake_api() {
  static const Api api{get_version, get_unique_id, init,         split,       async_error, finalize,
                       destroy,     abort_comm,    error_string, last_error,  all_reduce,  all_gather,
                       broadcast,   send,          receive,      group_start, group_end};
  return api;
}
const Api& api_under_test() { return fake_api(); }
void fake_remote_error(bool on) { remote_error = on; }
int64_t fake_calls() { return calls; }
int64_t fake_aborts() { return aborts; }

}  // namespace drover::nccl
