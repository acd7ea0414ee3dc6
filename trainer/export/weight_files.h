// The weight files of a model, each written, read back and noted by itself; one that was finished before is kept.
#pragma once
#include <functional>
#include <map>
#include <optional>

#include "model/files/kept_directory.h"
#include "model/files/shards.h"
#include "trainer/export/weight_part.h"

namespace drover {

// What the journal says of a finished file (journal/FILE.json).
struct WeightFileNote {
  std::string file;
  int64_t bytes = 0;  // of its tensors' data
  uint64_t hash = 0;  // of them
  std::vector<TensorUpdate> updates;
};
std::string note_text(const WeightFileNote& note);
WeightFileNote parse_note(const std::string& text, const std::string& where);  // bad_data

class WeightFiles {
 public:
  using Wrote = std::function<void()>;  // after each piece

  // Everything outlives it.
  WeightFiles(const KeptPaths& paths, const std::vector<Shard>& shards, const WeightParts& parts);

  // The note of a file that is finished and reads as it says; nothing where it has to be written.
  std::optional<WeightFileNote> finished(const Shard& shard) const;
  // Writes it; corruption where it does not read as it was written.
  WeightFileNote write(const Shard& shard, const Wrote& wrote) const;

 private:
  fs::path note_of(const Shard& shard) const { return paths_.journal / (shard.file + ".json"); }

  const KeptPaths& paths_;
  std::map<std::string, WeightPart*> part_of_;  // by tensor
};

}  // namespace drover
