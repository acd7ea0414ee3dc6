// A stand-in for NCCL whose ranks are threads of one process with asynchronous emulated streams. Calls return at once
// and run on their stream, in its order, where each waits until its other ends run (rendezvous); what is issued between
// group_start and group_end runs together. Communicators start and split only when all their ranks have called. An
// aborted communicator's calls end without doing anything.
#pragma once
#include "kernels/nccl/nccl_api.h"

namespace drover::nccl {

const Api& fake_api();

// For tests of errors: from now on `comm`'s calls do nothing and NCCL reports an error of a remote process; 0: all is
// well again.
void fake_remote_error(bool on);
int64_t fake_calls();   // enqueued so far
int64_t fake_aborts();  // communicators aborted so far

}  // namespace drover::nccl
