#include "trainer/export/weight_files.h"

#include <algorithm>
#include <charconv>
#include <cstring>

#include "kernels/base/error.h"
#include "kernels/base/hash.h"
#include "model/files/safetensors.h"

namespace drover {

namespace {

constexpr size_t kHashedAtOnce = size_t{1} << 20;
constexpr size_t kLargestNote = size_t{64} << 20;

// Of bytes that come in any pieces.
class DataHash {
 public:
  void add(const void* data, size_t bytes) {
    const auto* from = static_cast<const std::byte*>(data);
    while (bytes > 0) {
      const size_t some = std::min(bytes, kHashedAtOnce - held_);
      std::memcpy(block_.data() + held_, from, some);
      held_ += some, from += some, bytes -= some;
      if (held_ == kHashedAtOnce) fold();
    }
  }
  uint64_t value() {
    fold();
    return hash_;
  }

 private:
  void fold() {
    hash_ = xxh3(block_.data(), held_, hash_);
    held_ = 0;
  }
  std::vector<std::byte> block_ = std::vector<std::byte>(kHashedAtOnce);
  size_t held_ = 0;
  uint64_t hash_ = 0;
};

// Of a file with the shard's tensors; nothing where it has others.
std::optional<uint64_t> hash_of(const fs::path& path, const Shard& shard) {
  const SafetensorsFile file(path);
  const bool same = std::ranges::equal(file.tensors(), shard.tensors, [](const StoredTensor& a, const TensorSpec& b) {
    return a.name == b.name && a.dtype == b.dtype && a.shape == b.shape;
  });
  if (!same) return std::nullopt;
  DataHash hash;
  for (const StoredTensor& tensor : file.tensors()) {
    file.read_in_pieces(tensor, [&](std::span<const std::byte> bytes) { hash.add(bytes.data(), bytes.size()); });
  }
  return hash.value();
}

}  // namespace

std::string note_text(const WeightFileNote& note) {
  Json updates = Json::array();
  for (const TensorUpdate& update : note.updates) updates.push_back(json_of(update));
  return Json{{"file", note.file}, {"bytes", note.bytes}, {"hash", note.hash}, {"updates", updates}}.dump();
}

WeightFileNote parse_note(const std::string& text, const std::string& where) {
  const Json json = parse_json(text, where);
  try {
    WeightFileNote note{.file = json.at("file").get<std::string>(),
                        .bytes = json.at("bytes").get<int64_t>(),
                        .hash = json.at("hash").get<uint64_t>(),
                        .updates = {}};
    for (const Json& update : json.at("updates")) note.updates.push_back(tensor_update(update, where));
    return note;
  } catch (const nlohmann::json::exception& problem) {
    fail(Fault::bad_data, "{}: {}", where, problem.what());
  }
}

WeightFiles::WeightFiles(const KeptPaths& paths, const std::vector<Shard>& shards, const WeightParts& parts)
    : paths_(paths) {
  for (const auto& part : parts) {
    for (const TensorSpec& tensor : part->tensors()) part_of_[tensor.name] = part.get();
  }
  for (const Shard& shard : shards) {
    for (const TensorSpec& tensor : shard.tensors) require(part_of_.contains(tensor.name), "every tensor has a part");
  }
}

std::optional<WeightFileNote> WeightFiles::finished(const Shard& shard) const {
  const fs::path noted = note_of(shard), file = paths_.files / shard.file;
  if (!fs::exists(noted) || !fs::exists(file)) return std::nullopt;
  try {
    WeightFileNote note = parse_note(read_text(noted, kLargestNote), noted.string());
    if (note.file == shard.file && note.bytes == shard.bytes() && hash_of(file, shard) == note.hash) return note;
  } catch (const Error& error) {
    if (error.fault() != Fault::bad_data) throw;  // a file that is cut off or damaged is written again
  }
  return std::nullopt;
}

WeightFileNote WeightFiles::write(const Shard& shard, const Wrote& wrote) const {
  const fs::path path = paths_.files / shard.file;
  std::error_code ignored;
  fs::remove(note_of(shard), ignored);
  DataHash hash;
  {
    SafetensorsWriter writer(path, shard.tensors);
    for (const TensorSpec& tensor : writer.order()) {
      part_of_.at(tensor.name)->write(tensor.name, [&](const void* data, int64_t bytes) {
        hash.add(data, static_cast<size_t>(bytes));
        writer.write(tensor.name, data, bytes);
        wrote();
      });
    }
    writer.commit();
  }
  WeightFileNote note{.file = shard.file, .bytes = shard.bytes(), .hash = hash.value(), .updates = {}};
  if (hash_of(path, shard) != note.hash)
    fail(Fault::corruption, "read back, {} is not what was written; nothing was written", shard.file);
  for (const TensorSpec& tensor : shard.tensors) {
    const auto& update = part_of_.at(tensor.name)->update();
    if (update && update->name == tensor.name) note.updates.push_back(*update);
  }
  write_text(note_of(shard), note_text(note));
  return note;
}

}  // namespace drover
