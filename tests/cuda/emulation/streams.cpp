#include "streams.h"

#include <condition_variable>
#include <deque>
#include <list>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

namespace drover::cuda::emulation {

std::atomic<bool> asynchronous = false;

namespace {

constexpr unsigned kLingersEvery = 16;
constexpr std::chrono::microseconds kLingers{300};

thread_local int current_device = 0;

struct Queue {
  explicit Queue(int on) : device(on), thread([this] { run(); }) {}
  ~Queue() {
    {
      const std::lock_guard lock(mutex);
      ending = true;
    }
    changed.notify_all();
    if (thread.get_id() == std::this_thread::get_id()) {
      thread.detach();
    } else {
      thread.join();
    }
  }
  void run() {
    unsigned draw = 12345u + static_cast<unsigned>(device);
    std::unique_lock lock(mutex);
    while (true) {
      changed.wait(lock, [&] { return ending || !work.empty(); });
      if (work.empty()) return;
      const auto next = std::move(work.front());
      work.pop_front();
      lock.unlock();
      draw = draw * 1664525u + 1013904223u;
      if ((draw >> 16) % kLingersEvery == 0) std::this_thread::sleep_for(kLingers);
      next();
      lock.lock();
      ++done;
      changed.notify_all();
    }
  }
  bool reached(int64_t position) {
    const std::lock_guard lock(mutex);
    return done >= position;
  }
  void wait(int64_t position) {
    std::unique_lock lock(mutex);
    changed.wait(lock, [&] { return done >= position; });
  }

  const int device;
  std::mutex mutex;
  std::condition_variable changed;
  std::deque<std::function<void()>> work;
  int64_t enqueued = 0, done = 0;
  bool ending = false;
  std::thread thread;
};

using Works = std::vector<std::function<void()>>;
thread_local Works* recorded = nullptr;  // while this thread captures
thread_local cudaStream_t recorded_from = nullptr;

struct Event {
  std::shared_ptr<Queue> queue;
  int64_t position = 0;
};

std::mutex all_mutex;
std::list<std::shared_ptr<Queue>*> all;

std::shared_ptr<Queue>* of(cudaStream_t stream) { return reinterpret_cast<std::shared_ptr<Queue>*>(stream); }
Event* of(cudaEvent_t event) { return reinterpret_cast<Event*>(event); }

}  // namespace

bool capturing() { return recorded != nullptr; }

void enqueue(cudaStream_t stream, std::function<void()> work) {
  if (recorded != nullptr && recorded_from == stream) return recorded->push_back(std::move(work));
  if (stream == nullptr) return work();
  Queue& queue = **of(stream);
  const std::lock_guard lock(queue.mutex);
  queue.work.push_back(std::move(work));
  ++queue.enqueued;
  queue.changed.notify_all();
}

}  // namespace drover::cuda::emulation

using namespace drover::cuda::emulation;

extern "C" {

cudaError_t cudaSetDevice(int device) {
  current_device = device;
  return cudaSuccess;
}
cudaError_t cudaGetDevice(int* device) {
  *device = current_device;
  return cudaSuccess;
}
cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  *stream = nullptr;
  if (!asynchronous) return cudaSuccess;
  auto* queue = new std::shared_ptr<Queue>(std::make_shared<Queue>(current_device));
  const std::lock_guard lock(all_mutex);
  all.push_back(queue);
  *stream = reinterpret_cast<cudaStream_t>(queue);
  return cudaSuccess;
}
cudaError_t cudaDeviceGetStreamPriorityRange(int* least, int* greatest) {
  *least = 0;
  *greatest = -5;
  return cudaSuccess;
}
cudaError_t cudaStreamCreateWithPriority(cudaStream_t* stream, unsigned flags, int) {
  return cudaStreamCreateWithFlags(stream, flags);
}
cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  if (capturing()) return cudaErrorStreamCaptureUnsupported;
  ++waits;
  if (stream == nullptr) return cudaSuccess;
  const std::shared_ptr<Queue> queue = *of(stream);
  int64_t position = 0;
  {
    const std::lock_guard lock(queue->mutex);
    position = queue->enqueued;
  }
  queue->wait(position);
  return cudaSuccess;
}
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  if (stream == nullptr) return cudaSuccess;
  cudaStreamSynchronize(stream);
  {
    const std::lock_guard lock(all_mutex);
    all.remove(of(stream));
  }
  delete of(stream);
  return cudaSuccess;
}
// As cudaFree does it: for all streams of the device.
cudaError_t cudaDeviceSynchronize() {
  std::vector<std::shared_ptr<Queue>> queues;
  {
    const std::lock_guard lock(all_mutex);
    for (const auto* queue : all) {
      if ((*queue)->device == current_device) queues.push_back(*queue);
    }
  }
  for (auto& queue : queues) cudaStreamSynchronize(reinterpret_cast<cudaStream_t>(&queue));
  return cudaSuccess;
}
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
  *event = reinterpret_cast<cudaEvent_t>(new Event);
  return cudaSuccess;
}
cudaError_t cudaEventDestroy(cudaEvent_t event) {
  delete of(event);
  return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  if (capturing()) return cudaErrorStreamCaptureUnsupported;
  if (stream == nullptr) {
    *of(event) = {};
    return cudaSuccess;
  }
  const std::shared_ptr<Queue> queue = *of(stream);
  const std::lock_guard lock(queue->mutex);
  *of(event) = {queue, queue->enqueued};
  return cudaSuccess;
}
cudaError_t cudaEventQuery(cudaEvent_t event) {
  const Event& e = *of(event);  // of a stream that does all at once: as a device answers that is far behind
  return e.queue != nullptr && e.queue->reached(e.position) ? cudaSuccess : cudaErrorNotReady;
}
cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  if (capturing()) return cudaErrorStreamCaptureUnsupported;
  ++waits;
  const Event& e = *of(event);
  if (e.queue != nullptr) e.queue->wait(e.position);
  return cudaSuccess;
}
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
  if (capturing()) return cudaErrorStreamCaptureUnsupported;
  const Event e = *of(event);
  if (e.queue == nullptr) return cudaSuccess;
  enqueue(stream, [e] { e.queue->wait(e.position); });
  return cudaSuccess;
}
cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t, cudaEvent_t) {
  *milliseconds = 1;
  return cudaSuccess;
}

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode) {
  if (capturing()) return cudaErrorIllegalState;
  recorded = new Works;
  recorded_from = stream;
  return cudaSuccess;
}
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  if (!capturing() || recorded_from != stream) return cudaErrorIllegalState;
  *graph = reinterpret_cast<cudaGraph_t>(std::exchange(recorded, nullptr));
  return cudaSuccess;
}
cudaError_t cudaStreamIsCapturing(cudaStream_t stream, cudaStreamCaptureStatus* status) {
  *status = capturing() && recorded_from == stream ? cudaStreamCaptureStatusActive : cudaStreamCaptureStatusNone;
  return cudaSuccess;
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t* made, cudaGraph_t graph, unsigned long long) {
  *made = reinterpret_cast<cudaGraphExec_t>(new Works(*reinterpret_cast<Works*>(graph)));
  return cudaSuccess;
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t graph, cudaStream_t stream) {
  if (capturing()) return cudaErrorStreamCaptureUnsupported;
  for (const auto& work : *reinterpret_cast<const Works*>(graph)) enqueue(stream, work);
  return cudaSuccess;
}
cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  delete reinterpret_cast<Works*>(graph);
  return cudaSuccess;
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t graph) {
  delete reinterpret_cast<Works*>(graph);
  return cudaSuccess;
}

}  // extern "C"
