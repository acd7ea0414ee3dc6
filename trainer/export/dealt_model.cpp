#include "trainer/export/dealt_model.h"

#include <algorithm>

#include "kernels/base/json.h"
#include "kernels/base/log.h"
#include "kernels/comm/agree.h"
#include "trainer/export/disk_room.h"
#include "trainer/export/weight_files.h"
#include "trainer/export/writing_progress.h"

namespace drover {

namespace {

class Dealing {
 public:
  Dealing(const DealtModel& model, Communicator& world)
      : model_(model), world_(world), paths_(model.out, model.words.doing) {}

  void run() {
    try {
      together(world_, [&] { plan(); });
      together(world_, [&] { open(); });
      const DealtModel::Updates updates = updates_of(write_files());
      together(world_, [&] {
        if (world_.rank() != 0) return;
        write_index(paths_.files, shards_);
        model_.finish(paths_.files, updates);
        kept_->commit();
      });
    } catch (const Error& error) {
      leave(error.fault());
      throw;
    }
  }

 private:
  void plan() {
    parts_ = model_.parts();
    std::vector<std::vector<TensorSpec>> groups;
    for (const auto& part : parts_) groups.push_back(part->tensors());
    shards_ = plan_shards(groups, model_.max_shard_bytes);
    for (const Shard& shard : shards_) total_ += shard.bytes();
  }

  // Rank 0 looks what is there.
  void open() {
    if (world_.rank() != 0) return;
    kept_.emplace(paths_, model_.identity());
    if (kept_->found() == KeptDirectory::Found::another) {
      log::info("what was left of another {} into {} is removed: it was of other files or settings", model_.words.noun,
                paths_.target.string());
    }
    const int64_t there = bytes_that_stay();
    try {
      check_room(paths_.target, total_ - std::min(total_, there));
    } catch (const Error&) {
      if (there == 0) kept_->abandon();
      throw;
    }
  }

  // Of whole files; what was begun only is removed.
  int64_t bytes_that_stay() const {
    int64_t bytes = 0;
    for (const auto& entry : fs::directory_iterator(paths_.files)) {
      if (std::ranges::find(shards_, entry.path().filename().string(), &Shard::file) == shards_.end()) {
        fs::remove_all(entry.path());
      } else {
        bytes += static_cast<int64_t>(entry.file_size());
      }
    }
    return bytes;
  }

  // work(shard) of every shard, one of each process at a time, so that nobody waits for longer than a file takes.
  void in_rounds(const std::vector<const Shard*>& shards, const std::function<void(const Shard&)>& work) {
    const auto ranks = static_cast<size_t>(world_.size());
    for (size_t first = 0; first < shards.size(); first += ranks) {
      const size_t mine = first + static_cast<size_t>(world_.rank());
      together(world_, [&] {
        if (mine < shards.size()) work(*shards[mine]);
      });
    }
  }

  using Notes = std::map<std::string, WeightFileNote>;  // by file

  // All processes get all notes.
  Notes shared(const std::vector<WeightFileNote>& mine) {
    Json texts = Json::array();
    for (const WeightFileNote& note : mine) texts.push_back(note_text(note));
    Notes notes;
    for (const std::string& sent : world_.gather_strings(texts.dump())) {
      for (const Json& text : Json::parse(sent)) {
        WeightFileNote note = parse_note(text.get<std::string>(), "a note");
        notes.emplace(note.file, std::move(note));
      }
    }
    return notes;
  }

  Notes write_files() {
    const WeightFiles files(paths_, shards_, parts_);
    std::vector<WeightFileNote> mine;
    std::vector<const Shard*> wanted;
    for (const Shard& shard : shards_) wanted.push_back(&shard);
    in_rounds(wanted, [&](const Shard& shard) {
      if (auto note = files.finished(shard)) mine.push_back(std::move(*note));
    });
    const Notes finished = shared(mine);
    std::erase_if(wanted, [&](const Shard* shard) { return finished.contains(shard->file); });
    if (!finished.empty()) {
      log::info("{} of {} files are kept from a {} that was interrupted: they are as they were written",
                finished.size(), shards_.size(), model_.words.noun);
    }
    if (wanted.size() < static_cast<size_t>(world_.size()) && world_.size() > 1) {
      log::info("{} files are to be written, by one process each; --max-shard-bytes makes more of them", wanted.size());
    }
    WritingProgress progress(model_.words.done, paths_.files, total_);
    in_rounds(wanted, [&](const Shard& shard) { mine.push_back(files.write(shard, [&] { progress.tick(); })); });
    Notes notes = shared(mine);
    progress.finish();
    return notes;
  }

  static DealtModel::Updates updates_of(const Notes& notes) {
    DealtModel::Updates updates;
    for (const auto& [file, note] : notes) {
      for (const TensorUpdate& update : note.updates) updates.emplace(update.name, update);
    }
    return updates;
  }

  // What another start would run into again does not stay.
  void leave(Fault fault) {
    if (!kept_ || !fs::exists(paths_.root)) return;
    const bool again = fault == Fault::bad_data || fault == Fault::corruption || fault == Fault::usage;
    if (again) return kept_->abandon();
    log::info("what is finished stays in {}: the same command continues there, or remove it", paths_.root.string());
  }

  const DealtModel& model_;
  Communicator& world_;
  KeptPaths paths_;
  WeightParts parts_;
  std::vector<Shard> shards_;
  int64_t total_ = 0;                  // bytes
  std::optional<KeptDirectory> kept_;  // of rank 0
};

}  // namespace

void make_model(const DealtModel& model, Communicator& world) { Dealing(model, world).run(); }

}  // namespace drover
