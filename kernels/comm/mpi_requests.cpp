#include "kernels/comm/mpi_requests.h"

#include <algorithm>
#include <cstdlib>
#include <string_view>

#include "kernels/base/error.h"
#include "kernels/comm/agree.h"
#include "kernels/comm/deadline.h"

namespace drover {

namespace {

constexpr int64_t kMessageBytes = 1 << 30;  // MPI counts in int

bool synchronous() {
  static const bool value = [] {
    const char* text = std::getenv("DROVER_COMM_SYNCHRONOUS");
    return text != nullptr && std::string_view(text) == "1";
  }();
  return value;
}

std::string words_of(int code) {
  char text[MPI_MAX_ERROR_STRING];
  int length = 0;
  return MPI_Error_string(code, text, &length) == MPI_SUCCESS ? std::string(text, static_cast<size_t>(length))
                                                              : "unknown error";
}

}  // namespace

void check_mpi(int result, const char* call) {
  if (result == MPI_SUCCESS) return;
  fail(Fault::rank_lost, "{} failed: {}; a rank may have died: see the lines above and the launcher's own message",
       call, words_of(result));
}

MpiRequests::~MpiRequests() {
  for (size_t i = 0; i < requests_.size(); ++i) {
    if (requests_[i] == MPI_REQUEST_NULL) continue;
    if (messages_[i].receiving) {  // its buffer is free when the cancellation is complete, which needs no other rank
      MPI_Cancel(&requests_[i]);
      MPI_Wait(&requests_[i], MPI_STATUS_IGNORE);
    } else {
      MPI_Request_free(&requests_[i]);
    }
  }
}

void MpiRequests::send(const void* data, int64_t bytes, int to) {
  const char* from = static_cast<const char*>(data);
  do {
    const int piece = static_cast<int>(std::min(bytes, kMessageBytes));
    MPI_Request request = MPI_REQUEST_NULL;
    check_mpi((synchronous() ? MPI_Issend : MPI_Isend)(from, piece, MPI_BYTE, to, tag_, members_, &request),
              "MPI_Isend");
    requests_.push_back(request);
    messages_.push_back({to, piece, false});
    from += piece;
    bytes -= piece;
  } while (bytes > 0);
}

void MpiRequests::receive(void* data, int64_t bytes, int from) {
  char* to = static_cast<char*>(data);
  do {
    const int piece = static_cast<int>(std::min(bytes, kMessageBytes));
    MPI_Request request = MPI_REQUEST_NULL;
    check_mpi(MPI_Irecv(to, piece, MPI_BYTE, from, tag_, members_, &request), "MPI_Irecv");
    requests_.push_back(request);
    messages_.push_back({from, piece, true});
    to += piece;
    bytes -= piece;
  } while (bytes > 0);
}

void MpiRequests::wait() {
  if (requests_.empty()) return;
  std::vector<MPI_Status> statuses(requests_.size());
  Deadline deadline;
  while (true) {
    int done = 0;
    for (MPI_Status& status : statuses) status.MPI_ERROR = MPI_SUCCESS;
    const int result = MPI_Testall(static_cast<int>(requests_.size()), requests_.data(), &done, statuses.data());
    if (result == MPI_ERR_IN_STATUS) check_arrived(statuses);
    check_mpi(result, "MPI_Testall");
    if (done != 0) break;
    if (deadline.passed()) fail_late();
    deadline.pause();
  }
  check_arrived(statuses);
  requests_.clear();
  messages_.clear();
}

void MpiRequests::check_arrived(const std::vector<MPI_Status>& statuses) {
  for (size_t i = 0; i < statuses.size(); ++i) {
    int error_class = MPI_SUCCESS, bytes = 0;
    if (statuses[i].MPI_ERROR != MPI_ERR_PENDING) MPI_Error_class(statuses[i].MPI_ERROR, &error_class);
    MPI_Get_count(&statuses[i], MPI_BYTE, &bytes);
    if (error_class == MPI_ERR_TRUNCATE ||
        (messages_[i].receiving && error_class == MPI_SUCCESS && bytes != messages_[i].bytes)) {
      fail(Fault::internal,
           "internal error: {}: {} expects {} bytes from rank {} of {} (rank {} of the world), which sent {}",
           owner_.axis(), call_, messages_[i].bytes, messages_[i].peer, owner_.axis(),
           owner_.world_rank(messages_[i].peer), error_class == MPI_ERR_TRUNCATE ? "more" : std::to_string(bytes));
    }
    if (error_class != MPI_SUCCESS) check_mpi(statuses[i].MPI_ERROR, call_);
  }
}

void MpiRequests::fail_late() {
  std::vector<int> members, world;
  for (size_t i = 0; i < requests_.size(); ++i) {
    int done = 0;
    if (requests_[i] == MPI_REQUEST_NULL) continue;
    if (MPI_Test(&requests_[i], &done, MPI_STATUS_IGNORE) == MPI_SUCCESS && done != 0) continue;
    const int peer = messages_[i].peer;
    if (std::find(members.begin(), members.end(), peer) != members.end()) continue;
    members.push_back(peer);
    world.push_back(owner_.world_rank(peer));
  }
  fail(Fault::rank_hangs,
       "{}: {} waited {:g} s for rank {} of {} (of the world: {}), which hangs, has died or does something else; "
       "DROVER_COMM_TIMEOUT_S sets the time",
       owner_.axis(), call_, comm_deadline_seconds(), list_ranks(members), owner_.axis(), list_ranks(world));
}

}  // namespace drover
