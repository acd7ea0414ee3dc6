#include "trainer/export/merge.h"

#include <algorithm>
#include <map>

#include "kernels/base/error.h"
#include "kernels/base/hash.h"
#include "kernels/base/json.h"
#include "kernels/base/log.h"
#include "kernels/comm/agree.h"
#include "model/files/factor.h"
#include "model/files/kept_directory.h"
#include "model/weight_table.h"
#include "trainer/export/disk_room.h"
#include "trainer/export/merge_part.h"
#include "trainer/export/merge_progress.h"
#include "trainer/export/merged_files.h"
#include "trainer/setup/model_check.h"

namespace drover {

namespace {

constexpr int kLayout = 1;  // of what the journal and the files of an unfinished merge hold

// The base's config.json, with what the adapter changes of it. Merged weights in plain numbers are not quantised.
std::string merged_config(const ModelDirectory& base, const ModelConfig& merged, bool keep_format) {
  const fs::path file = base.path() / "config.json";
  const std::string text = read_text(file);
  const bool dequantised = base.is_quantised() && !keep_format;
  if (base.config() == merged && !dequantised) return text;
  OrderedJson json = parse_ordered_json(text, file.string());
  if (dequantised) {
    for (const char* name : {"quantization_config", "compression_config"}) json.erase(name);
  }
  json["tie_word_embeddings"] = merged.tied_head;
  json["vocab_size"] = merged.vocab;
  return json.dump(2) + "\n";
}

void hash_values(Sha256& hash, const std::vector<float>& values) {
  hash.update(values.data(), values.size() * sizeof(float));
}

// What a merge is of. Of the base sampled, as fingerprints are; of the adapter all.
std::string identity_of(const AdapterSource& adapter, BaseWeights& base, const MergeSettings& settings) {
  ModelDirectory& directory = base.directory();
  const AdapterMatcher matcher(adapter.config);
  Sha256 hash;
  for (const ParamSpec& spec : weight_table(merged_model(adapter.config, base))) {
    const std::string module = spec.name.substr(0, spec.name.rfind('.'));
    if (spec.cols > 1 && module != kEmbeddingModule && matcher.match(module)) {
      for (const FactorName& factor : kFactors)
        hash_values(hash, adapter.factor(module + std::string(factor.suffix)).values);
    }
    if (!base.changed(spec.name)) continue;
    std::vector<float> row(static_cast<size_t>(spec.cols));
    for (int64_t i = 0; i < spec.rows; ++i) {
      base.read(spec.name, i, 1, 0, spec.cols, DType::f32, row.data());
      hash_values(hash, row);
    }
  }
  return Json{{"layout", kLayout},
              {"config.json", read_text(directory.path() / "config.json")},
              {"base", directory.fingerprints(directory.names())},
              {"adapter_config", write_adapter_config(adapter.config)},
              {"adapter", hash.hex()},
              {"trained_over", static_cast<int>(settings.trained_over)},
              {"keep_format", settings.keep_format},
              {"max_shard_bytes", settings.max_shard_bytes}}
      .dump();
}

std::string numbers_of(BaseWeights& base, WeightsAs trained_over) {
  if (base.directory().is_quantised()) return "what the codes of the base's files mean";
  if (trained_over == WeightsAs::fp8 || trained_over == WeightsAs::nf4) {
    return fmt::format("{} of the base's files, as the adapter was trained over",
                       trained_over == WeightsAs::fp8 ? "fp8" : "NF4");
  }
  return "the base's numbers";
}

class Merge {
 public:
  Merge(const AdapterSource& adapter, BaseWeights& base, const fs::path& out, Backend& backend,
        const MergeSettings& settings)
      : adapter_(adapter),
        base_(base),
        settings_(settings),
        alone_(make_self_communicator("world")),
        world_(settings.world != nullptr ? *settings.world : *alone_),
        config_(merged_model(adapter.config, base)),
        table_(weight_table(config_)),
        rows_(adapter, base, backend, settings.trained_over),
        paths_(out) {}

  MergeReport run(const MoreFiles& more, const CheckMerged& check) {
    MergeReport report;
    try {
      together(world_, [&] { plan(); });
      together(world_, [&] { open(); });
      const std::map<std::string, MergedFileNote> notes = write_files();
      together(world_, [&] {
        if (world_.rank() == 0) report = finish(notes, more, check);
      });
    } catch (const Error& error) {
      leave(error.fault());
      throw;
    }
    return report;
  }

 private:
  void plan() {
    check_weights(base_.directory());
    parts_ =
        settings_.keep_format ? kept_parts(table_, adapter_.config, base_, rows_) : plain_parts(table_, base_, rows_);
    std::vector<std::vector<TensorSpec>> groups;
    for (const auto& part : parts_) groups.push_back(part->tensors());
    shards_ = plan_shards(groups, settings_.max_shard_bytes);
    for (const Shard& shard : shards_) total_ += shard.bytes();
  }

  // Rank 0 looks what is there.
  void open() {
    if (world_.rank() != 0) return;
    kept_.emplace(paths_.target, identity_of(adapter_, base_, settings_));
    if (kept_->found() == KeptDirectory::Found::another) {
      log::info("what was left of another merge into {} is removed: it was of another adapter, base or setting",
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

  // All processes get all notes.
  std::map<std::string, MergedFileNote> shared(const std::vector<MergedFileNote>& mine) {
    Json texts = Json::array();
    for (const MergedFileNote& note : mine) texts.push_back(note_text(note));
    std::map<std::string, MergedFileNote> notes;
    for (const std::string& sent : world_.gather_strings(texts.dump())) {
      for (const Json& text : Json::parse(sent)) {
        MergedFileNote note = parse_note(text.get<std::string>(), "a note");
        notes.emplace(note.file, std::move(note));
      }
    }
    return notes;
  }

  std::map<std::string, MergedFileNote> write_files() {
    const MergedFiles files(paths_, shards_, parts_);
    std::vector<MergedFileNote> mine;
    std::vector<const Shard*> wanted;
    for (const Shard& shard : shards_) wanted.push_back(&shard);
    in_rounds(wanted, [&](const Shard& shard) {
      if (auto note = files.finished(shard)) mine.push_back(std::move(*note));
    });
    const std::map<std::string, MergedFileNote> finished = shared(mine);
    std::erase_if(wanted, [&](const Shard* shard) { return finished.contains(shard->file); });
    if (!finished.empty()) {
      log::info("{} of {} files are kept from a merge that was interrupted: they are as they were written",
                finished.size(), shards_.size());
    }
    if (wanted.size() < static_cast<size_t>(world_.size()) && world_.size() > 1) {
      log::info("{} files are to be written, by one process each; --max-shard-bytes makes more of them", wanted.size());
    }
    MergeProgress progress(paths_.files, total_);
    in_rounds(wanted, [&](const Shard& shard) { mine.push_back(files.write(shard, [&] { progress.tick(); })); });
    auto notes = shared(mine);
    progress.finish();
    return notes;
  }

  MergeReport finish(const std::map<std::string, MergedFileNote>& notes, const MoreFiles& more,
                     const CheckMerged& check) {
    write_index(paths_.files, shards_);
    write_text(paths_.files / "config.json", merged_config(base_.directory(), config_, settings_.keep_format));
    if (more.write) more.write(paths_.files);
    ModelDirectory back(paths_.files);
    check_weights(back);
    MergeReport report = report_of(notes);
    check(paths_.files, report);
    write_text(paths_.files / "merge_report.json", report_json(report));
    kept_->commit();
    return report;
  }

  MergeReport report_of(const std::map<std::string, MergedFileNote>& notes) {
    std::map<std::string, TensorUpdate> updates;
    for (const auto& [file, note] : notes) {
      for (const TensorUpdate& update : note.updates) updates.emplace(update.name, update);
    }
    MergeReport report{
        .weights = numbers_of(base_, settings_.trained_over),
        .written = settings_.keep_format ? "the base's format, requantised" : "plain numbers of the base's types"};
    for (const ParamSpec& spec : table_) {
      const auto found = updates.find(spec.name);
      if (found != updates.end()) {
        report.updates.push_back(found->second);
      } else if (!base_.changed(spec.name)) {
        report.untouched.push_back(spec.name);
      }
    }
    return report;
  }

  // What another start would run into again does not stay.
  void leave(Fault fault) {
    if (!kept_ || !fs::exists(paths_.root)) return;
    const bool again = fault == Fault::bad_data || fault == Fault::corruption || fault == Fault::usage;
    if (again) return kept_->abandon();
    log::info("what is finished stays in {}: the same command continues there, or remove it", paths_.root.string());
  }

  const AdapterSource& adapter_;
  BaseWeights& base_;
  const MergeSettings& settings_;
  std::unique_ptr<Communicator> alone_;
  Communicator& world_;
  ModelConfig config_;
  std::vector<ParamSpec> table_;
  MergedRows rows_;
  KeptPaths paths_;
  MergeParts parts_;
  std::vector<Shard> shards_;
  int64_t total_ = 0;                  // bytes
  std::optional<KeptDirectory> kept_;  // of rank 0
};

}  // namespace

ModelConfig merged_model(const AdapterConfig& adapter, const BaseWeights& base) {
  ModelConfig config = base.config();
  if (AdapterMatcher(adapter).match(kHeadModule)) config.tied_head = false;
  return config;
}

MergeReport merge(const AdapterSource& adapter, BaseWeights& base, const fs::path& out, Backend& backend,
                  const MoreFiles& more, const CheckMerged& check, const MergeSettings& settings) {
  return Merge(adapter, base, out, backend, settings).run(more, check);
}

}  // namespace drover
