// Communicators whose messages are seen while somebody looks, for traces. They move what those behind them move.
#pragma once
#include "kernels/comm/count.h"
#include "kernels/comm/mesh.h"

namespace drover {

class MessageObserver {
 public:
  virtual ~MessageObserver() = default;
  // Around what a rank's queue does for a message: the whole of a collective; of a sum or an exchange that was started
  // only the wait for it, since what was computed meanwhile did not wait. Bytes as CountCommunicator has them, of all
  // messages of an exchange ("send", "receive", or "exchange" of both kinds) together.
  virtual void begin(const CommCall& call) = 0;
  virtual void end(const CommCall& call) = 0;
};

// Who looks; null: nobody, which costs a call of a function for each message.
struct MessageView {
  MessageObserver* observer = nullptr;
};

// The same mesh, with the axes of more than one rank seen through `view`, which outlives it. The world is as it was: it
// moves what hosts say.
Mesh observed_mesh(const Mesh& mesh, MessageView& view);

}  // namespace drover
