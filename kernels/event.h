// Events: what was started or enqueued and may not be done yet. One family for numbers on their way to the host, for
// moments of a device's queue, and for memory that another rank, or a copy to the device, fills or reads.
#pragma once
#include <memory>
#include <span>

namespace drover {

class AsyncEvent {
 public:
  virtual ~AsyncEvent() = default;
  // Returns when what the event stands for may be used: numbers and times by the host; memory by the host where ops run
  // at once, and where they are enqueued by those that are enqueued from then on, for which the host is not held up.
  // Repeated calls return at once.
  virtual void wait() = 0;
};

// Numbers on their way to the host: as they were when all that was enqueued before was done.
class Reading : public AsyncEvent {
 public:
  virtual std::span<const double> values() = 0;  // waits until they are there
};

// When all that was enqueued before it was done.
class Moment : public AsyncEvent {
 public:
  virtual bool is_reached() const = 0;              // without waiting
  virtual double seconds_until(Moment& later) = 0;  // of the same backend; waits for both
};

// Memory that is being filled or read: it belongs to the transfer until `wait` returned.
class Transfer : public AsyncEvent {};

std::unique_ptr<Transfer> done_transfer();  // one that is over

}  // namespace drover
