#include "kernels/cuda/attention_segments.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>

namespace drover::cuda {

namespace {

constexpr int64_t kMostRows = std::numeric_limits<int32_t>::max() / 2;

int64_t blocks_of(const Segment& s, int64_t block_size) {
  return s.block_table == nullptr ? 0 : (s.nk + block_size - 1) / block_size;
}

bool equal(std::span<const Segment> a, std::span<const Segment> b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](const Segment& s, const Segment& t) {
    return s.q0 == t.q0 && s.nq == t.nq && s.k0 == t.k0 && s.nk == t.nk && s.offset == t.offset &&
           (s.block_table == nullptr) == (t.block_table == nullptr);
  });
}

bool equal_tables(std::span<const Segment> segments, int64_t block_size, const std::vector<int32_t>& tables) {
  size_t at = 0;
  for (const Segment& s : segments) {
    const size_t blocks = static_cast<size_t>(blocks_of(s, block_size));
    if (blocks == 0) continue;
    if (std::memcmp(tables.data() + at, s.block_table, blocks * sizeof(int32_t)) != 0) return false;
    at += blocks;
  }
  return true;
}

int64_t keys_seen(const AttentionTask& t) {
  return std::clamp<int64_t>(std::min(t.first + kAttentionTile, t.nq) + t.offset, 0, t.nk);
}
int64_t queries_seeing(const AttentionTask& t) { return t.nq - std::clamp<int64_t>(t.first - t.offset, 0, t.nq); }

// The segment's first task; its block table is put behind the others.
AttentionTask task_of(const Segment& s, int64_t block_size, std::vector<int32_t>& tables) {
  require(s.nq >= 0 && s.nk >= 0 && s.nq <= kMostRows && s.nk <= kMostRows, "a segment has between 0 and 2^30 rows");
  AttentionTask task{
      .q0 = s.q0, .k0 = s.k0, .offset = s.offset, .nq = static_cast<int32_t>(s.nq), .nk = static_cast<int32_t>(s.nk)};
  if (s.block_table == nullptr) return task;
  require(block_size > 0 && block_size <= kMostRows, "a block table needs a block size");
  task.table = static_cast<int32_t>(tables.size());
  tables.insert(tables.end(), s.block_table, s.block_table + blocks_of(s, block_size));
  require(static_cast<int64_t>(tables.size()) <= kMostRows, "block tables have at most 2^30 entries");
  return task;
}

// Where each single row's parts lie, and how many blocks and parts there are.
void count_blocks(std::vector<AttentionTask>& rows, AttentionTasks& all) {
  for (AttentionTask& row : rows) {
    const int64_t blocks = std::max<int64_t>((keys_seen(row) + kDecodeKeys - 1) / kDecodeKeys, 1);
    row.part = static_cast<int32_t>(all.decode_parts);
    all.decode_parts += blocks;
    all.decode_blocks = std::max(all.decode_blocks, blocks);
  }
  require(all.decode_parts <= kMostRows, "single rows have at most 2^30 blocks of keys");
}

// The longest first, so that no part of the device is left with one at the end.
template <typename Length>
void sort(std::vector<AttentionTask>& tasks, Length&& length) {
  std::stable_sort(tasks.begin(), tasks.end(),
                   [&](const AttentionTask& a, const AttentionTask& b) { return length(a) > length(b); });
}

}  // namespace

const AttentionTasks& AttentionSegments::on_device(std::span<const Segment> segments, int64_t block_size) {
  ++calls_;
  Slot* oldest = &slots_[0];
  for (Slot& slot : slots_) {
    if (slot.used > 0 && slot.block_size == block_size && equal(slot.segments, segments) &&
        equal_tables(segments, block_size, slot.tables)) {
      slot.used = calls_;
      return slot.tasks;
    }
    if (slot.used < oldest->used) oldest = &slot;
  }
  fill(*oldest, segments, block_size);
  oldest->used = calls_;
  return oldest->tasks;
}

void AttentionSegments::fill(Slot& slot, std::span<const Segment> segments, int64_t block_size) {
  slot.used = 0;  // not to be found if this fails half-way
  slot.segments.assign(segments.begin(), segments.end());
  slot.block_size = block_size;
  slot.tables.clear();
  std::vector<AttentionTask> tiles, rows, keys;
  for (const Segment& s : segments) {
    AttentionTask task = task_of(s, block_size, slot.tables);
    for (task.first = 0; task.first < task.nq; task.first += kAttentionTile)
      (task.nq == 1 ? rows : tiles).push_back(task);
    for (task.first = 0; task.first < task.nk; task.first += kAttentionTile) keys.push_back(task);
  }
  sort(tiles, keys_seen);
  sort(rows, keys_seen);
  sort(keys, queries_seeing);
  AttentionTasks counted;
  count_blocks(rows, counted);

  const size_t task_bytes = sizeof(AttentionTask), queries = tiles.size() + rows.size();
  std::vector<char> image((queries + keys.size()) * task_bytes + slot.tables.size() * sizeof(int32_t));
  char* at = image.data();
  const auto put = [&](const auto& items) {
    if (!items.empty())
      at = static_cast<char*>(std::memcpy(at, items.data(), items.size() * sizeof(items[0]))) +
           items.size() * sizeof(items[0]);
  };
  put(tiles);
  put(rows);
  put(keys);
  put(slot.tables);

  const auto* tasks = reinterpret_cast<const AttentionTask*>(slot.device.put(image, uploader_, traffic_));
  slot.tasks = {.queries = tasks,
                .keys = tasks + queries,
                .tables = reinterpret_cast<const int32_t*>(tasks + queries + keys.size()),
                .tiles = static_cast<int64_t>(tiles.size()),
                .single_rows = static_cast<int64_t>(rows.size()),
                .decode_blocks = counted.decode_blocks,
                .decode_parts = counted.decode_parts,
                .key_tiles = static_cast<int64_t>(keys.size())};
}

const AttentionTasks& AttentionSegments::stage(std::span<const Segment> rows, int64_t block_size) {
  std::vector<AttentionTask> tasks;
  std::vector<int32_t> tables;
  for (const Segment& s : rows) {
    require(s.nq == 1 && s.q0 == static_cast<int64_t>(tasks.size()), "what is staged are single rows in their order");
    tasks.push_back(task_of(s, block_size, tables));
  }
  staged_ = {};
  count_blocks(tasks, staged_);
  staged_.decode_blocks = static_cast<int64_t>(std::bit_ceil(static_cast<uint64_t>(staged_.decode_blocks)));
  const size_t task_bytes = tasks.size() * sizeof(AttentionTask);
  std::vector<char> image(task_bytes + tables.size() * sizeof(int32_t));
  std::memcpy(image.data(), tasks.data(), task_bytes);
  if (!tables.empty()) std::memcpy(image.data() + task_bytes, tables.data(), tables.size() * sizeof(int32_t));
  const auto* at = reinterpret_cast<const AttentionTask*>(staged_device_.put(image, uploader_, traffic_));
  staged_.queries = at;
  staged_.tables = reinterpret_cast<const int32_t*>(at + tasks.size());
  staged_.single_rows = static_cast<int64_t>(tasks.size());
  return staged_;
}

int64_t AttentionSegments::bytes() const {
  int64_t bytes = staged_device_.capacity();
  for (const Slot& slot : slots_) bytes += slot.device.capacity();
  return bytes;
}

}  // namespace drover::cuda
