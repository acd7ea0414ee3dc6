#include "trainer/engine/engine.h"

#include <algorithm>
#include <cmath>

#include "kernels/base/error.h"

namespace drover {

// Rows of a micro-batch that pass through the blocks together: all of them, or one of two parts, of which each computes
// while the other is summed over tp.
struct Engine::Part {
  int64_t begin = 0, rows = 0;
  std::vector<Segment> segments;  // counted from `begin`
};

// One micro-batch in flight: its inputs and what its backward needs. Slots are reused in turn.
struct Engine::Slot {
  Slot(const std::string& name, Memory& memory, int64_t capacity) : arena(name, memory, capacity) {}
  Arena arena;
  std::optional<Frame> frame;
  const MicroBatch* micro_batch = nullptr;
  Tensor ids, positions, documents;  // (T) i32
  Tensor rows, labels, weights;      // (N) trained rows, their targets, w / Σw
  std::vector<Part> parts;           // one or two
  Tensor stream;                     // (T,D): x on the way forward, dx on the way back; the first rows of its Stream
  Stage::Saved saved;
  // For the embedding and the head, which ask for no segments.
  Part all() const { return {.begin = 0, .rows = stream.rows, .segments = {}}; }
};

namespace {

int stage_of_layer(const std::vector<LayerRange>& partition, int64_t layer) {
  for (size_t stage = 0; stage < partition.size(); ++stage) {
    if (layer < partition[stage].end) return static_cast<int>(stage);
  }
  return static_cast<int>(partition.size());
}

// The first stage that has something to train: the last where only the head has an adapter, none where nothing has.
int first_trained_stage(const EngineSettings& s) {
  if (s.adapter.empty()) return static_cast<int>(s.partition.size());
  return std::min(stage_of_layer(s.partition, lowest_adapted_layer(s.adapter)),
                  static_cast<int>(s.partition.size()) - 1);
}

Schedule schedule_of(const EngineSettings& s, const Mesh& mesh, int64_t micro_batches, bool train) {
  ScheduleShape shape = schedule_shape(s, mesh.shape, micro_batches, train);
  shape.stage = mesh.position.pp();
  return one_f_one_b(shape);
}

// Where two parts of whole documents are cut that are as equal as they can be; 0 where one of them would have fewer
// rows than it should.
int64_t cut_in_two(const MicroBatch& m, int64_t least_rows) {
  const int64_t tokens = static_cast<int64_t>(m.tokens.size());
  int64_t cut = 0;
  for (const DocumentSpan& span : m.spans) {
    if (std::abs(2 * span.begin - tokens) < std::abs(2 * cut - tokens)) cut = span.begin;
  }
  return std::min(cut, tokens - cut) >= std::max(least_rows, tokens / 4) ? cut : 0;
}

Tensor contiguous(Tensor x) {
  x.pitch = x.cols;
  return x;
}

double loss_of(Reading& log_likelihoods) {
  double loss = 0;
  for (double l : log_likelihoods.values()) loss -= l;
  return loss;
}

}  // namespace

ScheduleShape schedule_shape(const EngineSettings& s, const MeshShape& mesh, int64_t micro_batches, bool train) {
  ScheduleShape shape{.stages = mesh.pp(),
                      .micro_batches = static_cast<int>(micro_batches),
                      .first_trained_stage = train ? first_trained_stage(s) : mesh.pp()};
  if (!s.streamed || mesh.pp() > 1 || (train && (s.deterministic || !s.recompute))) return shape;
  const MicroBatchSize& size = train ? s.capacity.micro_batch : s.capacity.evaluation.value_or(s.capacity.micro_batch);
  const int64_t tokens = std::max<int64_t>(size.tokens, 1), enough = (kTokensTogether + tokens - 1) / tokens;
  shape.together =
      static_cast<int>(std::clamp<int64_t>(std::min(micro_batches, s.capacity.local_micro_batches), 1, enough));
  return shape;
}

Engine::Engine(const EngineSettings& settings, Replica& replica, int64_t saved_bytes)
    : settings_(settings),
      replica_(replica),
      backend_(replica.backend()),
      mesh_(replica.device.mesh),
      stage_(replica.stage),
      scratch_(replica.arenas.scratch) {
  if (settings_.train && replica.trainables) {
    const bool head = settings_.adapter.back()[static_cast<size_t>(Projection::head)].has_value();
    const int64_t layers = settings_.model.layers + (head ? 1 : 0);  // it counts as one
    const Accumulation accumulation{settings_.deterministic, settings_.capacity.local_micro_batches};
    optimizer_.emplace(settings_.optimizer, accumulation, *replica.trainables, layers, mesh_, backend_,
                       replica.arenas.optimizer, scratch_);
  }
  first_trained_stage_ = first_trained_stage(settings_);
  int64_t slot_count = 1, stream_count = 1;
  for (bool train : {settings_.train, false}) {
    const Schedule schedule = schedule_of(settings_, mesh_, settings_.capacity.local_micro_batches, train);
    const int64_t together = schedule.shape.together;
    slot_count = std::max({slot_count, slots(schedule), together});
    stream_count = std::max({stream_count, streams(schedule), together});
  }
  const Capacity& capacity = settings_.capacity;
  const int64_t evaluated = capacity.evaluation.value_or(capacity.micro_batch).tokens, width = settings_.model.hidden;
  const int64_t tokens = settings_.train ? std::max(capacity.micro_batch.tokens, evaluated) : evaluated;
  int64_t pitch = width;
  for (const Block& block : stage_.blocks()) pitch = std::max(pitch, block.dx_pitch());
  const int64_t stream_bytes = stream_count * Arena::bytes_of(tokens, width, settings_.dtype, pitch);
  stream_arena_.emplace("streams", backend_.memory(), stream_bytes);
  for (int64_t i = 0; i < stream_count; ++i) {
    streams_.push_back({.x = stream_arena_->tensor(tokens, width, settings_.dtype, pitch)});
  }
  for (int64_t i = 0; i < slot_count; ++i) {
    slots_.push_back(std::make_unique<Slot>(fmt::format("saved[{}]", i), backend_.memory(),
                                            (saved_bytes - stream_bytes) / slot_count));
  }
}

Engine::~Engine() = default;

ArenaBytes Engine::peak() const {
  int64_t slot = 0;
  for (const auto& s : slots_) slot = std::max(slot, s->arena.peak_bytes());
  ArenaBytes peak = replica_.peak();
  peak.saved = slot * static_cast<int64_t>(slots_.size()) + stream_arena_->peak_bytes();
  return peak;
}

Arena& Engine::idle_memory() { return slots_.front()->arena; }

Context Engine::context_of(const Slot& slot, const Part& part, Arena& scratch, const Pass& pass) {
  return {.backend = backend_,
          .scratch = scratch,
          .dtype = settings_.dtype,
          .rope = stage_.rope(),
          .begin = part.begin,
          .ids = slot.ids.rows_from(part.begin, part.rows),
          .positions = slot.positions.rows_from(part.begin, part.rows),
          .documents = slot.documents.rows_from(part.begin, part.rows),
          .segments = part.segments,
          .dropout = {saves(pass) ? settings_.dropout : 0.0f, settings_.seed, pass.step}};
}

void Engine::open(int micro_batch, const Pass& pass) {
  Slot& slot = slot_of(micro_batch);
  const MicroBatch& m = pass.batch.micro_batches[static_cast<size_t>(micro_batch)];
  slot.frame.reset();
  slot.frame.emplace(slot.arena);
  slot.micro_batch = &m;
  const int64_t tokens = static_cast<int64_t>(m.tokens.size());

  std::vector<int32_t> rows, labels;
  std::vector<float> weights;
  for (size_t t = 0; t < m.tokens.size(); ++t) {
    if (m.labels[t] < 0) continue;
    rows.push_back(static_cast<int32_t>(t));
    labels.push_back(m.labels[t]);
    weights.push_back(static_cast<float>(m.weights[t] / pass.batch.weight_sum));
  }
  const auto upload = [&](const auto& host, DType dtype) {
    Tensor t = slot.arena.tensor(static_cast<int64_t>(host.size()), 1, dtype);
    backend_.upload(host.data(), t);
    return t;
  };
  slot.ids = upload(m.tokens, DType::i32);
  slot.positions = upload(m.positions, DType::i32);
  slot.documents = upload(m.documents, DType::i32);
  slot.rows = upload(rows, DType::i32);
  slot.labels = upload(labels, DType::i32);
  slot.weights = upload(weights, DType::f32);
  slot.parts.clear();
  const int64_t cut = mesh_.tp().overlaps_sums() ? cut_in_two(m, settings_.least_part_rows) : 0;
  if (cut > 0) slot.parts.push_back({0, cut, {}});
  slot.parts.push_back({cut, tokens - cut, {}});
  for (const DocumentSpan& span : m.spans) {
    Part& part = span.begin < cut ? slot.parts.front() : slot.parts.back();
    const int64_t begin = span.begin - part.begin;
    part.segments.push_back({.q0 = begin, .nq = span.length, .k0 = begin, .nk = span.length});
  }
  Stream& stream = stream_of(micro_batch);
  stream.wait();
  slot.stream = stream.x.rows_from(0, tokens);
  const KeepPolicy keep = settings_.recompute ? KeepPolicy::inputs : KeepPolicy::all;
  slot.saved = saves(pass) ? stage_.saved(slot.arena, tokens, keep) : Stage::Saved{};
}

// The first parts, and the second ones, each from block to block; these two take turns.
void Engine::run_parts(Group group, const Pass& pass, Walk walk) {
  std::vector<Context> contexts;
  contexts.reserve(2 * group.size());  // they stay where they are
  std::vector<Stage::Passage> first, second;
  for (Slot* slot : group) {
    const bool both = slot->parts.size() > 1;
    for (const Part& part : slot->parts) {
      const bool behind = both && &part == &slot->parts.back();
      contexts.push_back(context_of(*slot, part, behind ? scratch_.second_stack() : scratch_, pass));
      contexts.back().overlapped = both;
      (behind ? second : first)
          .push_back({&contexts.back(), slot->stream.rows_from(part.begin, part.rows), &slot->saved});
    }
  }
  if (second.empty()) return run_alone((stage_.*walk)(std::move(first)));
  interleave((stage_.*walk)(std::move(first)), (stage_.*walk)(std::move(second)));
}

void Engine::forward(Group group, const Pass& pass) {
  for (const Slot* slot : group) {
    const Part all = slot->all();
    Context ctx = context_of(*slot, all, scratch_, pass);
    if (stage_.placement().first) stage_.embed(ctx, slot->stream);
  }
  run_parts(group, pass, &Stage::forward_together);
  for (Slot* slot : group) {
    if (stage_.head()) score(*slot, pass);
  }
}

void Engine::score(Slot& slot, const Pass& pass) {
  const Part all = slot.all();
  Context ctx = context_of(slot, all, scratch_, pass);
  Frame frame(scratch_);
  Tensor logprob = frame.tensor(slot.rows.rows, 1, DType::f32);
  // The gradient replaces the stream: backward starts from it.
  Tensor dx = saves(pass) ? slot.stream : Tensor{};
  stage_.head()->loss(ctx, slot.stream, slot.rows, slot.labels, slot.weights, logprob, dx);
  backend_.dot(slot.weights, logprob, pass.losses.rows_from(slot.micro_batch->index, 1));
  if (pass.sink) {
    std::vector<float> host(static_cast<size_t>(logprob.rows));
    backend_.download(logprob, host.data());
    pass.sink(*slot.micro_batch, host);
  }
}

void Engine::compute(std::span<const Action> actions, const Pass& pass) {
  std::vector<Slot*> group;
  for (const Action& a : actions) {
    if (a.kind == ActionKind::forward && stage_.placement().first) open(a.micro_batch, pass);
    group.push_back(&slot_of(a.micro_batch));
  }
  if (actions.front().kind == ActionKind::forward) return forward(group, pass);
  run_parts(group, pass, &Stage::backward_together);
  for (const Slot* slot : group) optimizer_->add_micro_batch(slot->micro_batch->index);
}

// A stream's rows travel one right behind another, and lie so in its own memory while they do.
Tensor Engine::closed_up(Tensor x) {
  if (!x.contiguous()) {
    Frame frame(scratch_);
    const Tensor rows = frame.tensor(x.rows, x.cols, x.dtype);
    backend_.copy(x, rows);
    backend_.copy(rows, contiguous(x));
  }
  return contiguous(x);
}

void Engine::spread(Tensor x) {
  if (x.contiguous()) return;
  Frame frame(scratch_);
  const Tensor rows = frame.tensor(x.rows, x.cols, x.dtype);
  backend_.copy(contiguous(x), rows);
  backend_.copy(rows, x);
}

void Engine::exchange(std::span<const Action> actions, const Pass& pass) {
  const int pp = mesh_.position.pp();
  std::vector<PeerMessage> messages;
  for (const Action& a : actions) {
    if (a.kind == ActionKind::recv_forward) open(a.micro_batch, pass);
    stream_of(a.micro_batch).wait();
    const bool forwards = a.kind == ActionKind::recv_forward || a.kind == ActionKind::send_forward;
    const int64_t index = pass.batch.micro_batches[static_cast<size_t>(a.micro_batch)].index;
    const int tag = static_cast<int>(index % (1 << 15)) * 2 + (forwards ? 0 : 1);
    const Tensor stream = slot_of(a.micro_batch).stream;
    messages.push_back({is_send(a.kind) ? PeerMessage::Way::send : PeerMessage::Way::receive,
                        is_send(a.kind) ? closed_up(stream) : contiguous(stream),
                        is_send(a.kind) == forwards ? pp + 1 : pp - 1, tag});
  }
  const std::shared_ptr<Transfer> transfer = mesh_.pp().exchange(messages);
  bool receives = false;
  for (const Action& a : actions) {
    receives |= is_receive(a.kind);
    stream_of(a.micro_batch).sending = transfer;
  }
  if (receives) transfer->wait();
  for (const Action& a : actions) {
    if (is_receive(a.kind)) spread(slot_of(a.micro_batch).stream);
  }
}

template <typename Do>
void Engine::observed(const Work& work, Do&& run) {
  if (observer_ != nullptr) observer_->begin(work);
  run();
  if (observer_ != nullptr) observer_->end(work);
}

void Engine::run(const Pass& pass) {
  const int64_t micro_batches = static_cast<int64_t>(pass.batch.micro_batches.size());
  const Schedule schedule = schedule_of(settings_, mesh_, micro_batches, pass.train);
  for (size_t next = 0; next < schedule.actions.size();) {
    progress_();
    const size_t group = group_end(schedule, next);
    const bool computes = group == next;
    const size_t end = computes ? together_end(schedule, next) : group;
    const std::span<const Action> actions = std::span(schedule.actions).subspan(next, end - next);
    observed({.actions = actions}, [&] { computes ? compute(actions, pass) : exchange(actions, pass); });
    next = end;
  }
  for (Stream& stream : streams_) stream.wait();
  for (auto& slot : slots_) slot->frame.reset();
}

std::unique_ptr<Reading> Engine::read_losses(Tensor losses) {
  // All but the last stage hold zeros, and every micro-batch lies on one dp rank: the sums are exact.
  mesh_.pp().all_reduce(losses);
  mesh_.dp().all_reduce(losses);
  return backend_.read_later(losses);
}

std::unique_ptr<Reading> Engine::enqueue_gradients(const Batch& batch, int64_t step) {
  require(optimizer_.has_value(), "training needs an engine that was built to train");
  Frame frame(scratch_);
  Tensor losses = frame.tensor(batch.total, 1, DType::f64);
  backend_.zero(losses);
  optimizer_->start();
  run({.batch = batch, .losses = losses, .train = true, .step = static_cast<uint64_t>(step), .sink = {}});
  std::unique_ptr<Reading> reading;
  observed({.kind = WorkKind::sum}, [&] {
    optimizer_->sum();
    reading = read_losses(losses);
  });
  return reading;
}

PendingNorm Engine::enqueue_update(int64_t step) {
  progress_();
  std::optional<PendingNorm> norm;
  observed({.kind = WorkKind::update}, [&] {
    norm = optimizer_->update(step);
    replica_.adapter->refresh();
  });
  return std::move(*norm);
}

PendingStep Engine::enqueue_step(const Batch& batch, int64_t step) {
  std::unique_ptr<Reading> losses = enqueue_gradients(batch, step);
  return {std::move(losses), enqueue_update(step)};
}

StepResult PendingStep::result() { return {loss_of(*losses_), norm_.value()}; }
double Engine::accumulate_gradients(const Batch& batch, int64_t step) {
  return loss_of(*enqueue_gradients(batch, step));
}
double Engine::apply_gradients(int64_t step) { return enqueue_update(step).value(); }

double Engine::evaluate(const Batch& batch, const LogprobSink& per_micro_batch) {
  Frame frame(scratch_);
  Tensor losses = frame.tensor(batch.total, 1, DType::f64);
  backend_.zero(losses);
  run({.batch = batch, .losses = losses, .sink = per_micro_batch});
  return loss_of(*read_losses(losses)) * batch.weight_sum;
}

}  // namespace drover
