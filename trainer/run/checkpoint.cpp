#include "trainer/run/checkpoint.h"

#include <algorithm>
#include <set>

#include "kernels/base/hash.h"
#include "kernels/base/hdf5.h"
#include "kernels/base/json.h"
#include "kernels/base/json_problem.h"
#include "kernels/comm/agree.h"

namespace drover {

namespace {

using json = Json;

constexpr int kVersion = 2;
constexpr size_t kMostDigits = 18;  // of a step in a directory's name
constexpr int kAttempts = 100;
constexpr uint64_t kMostSteps = uint64_t{1} << 53;
constexpr uint64_t kLargestSide = (uint64_t{1} << 31) - 1;  // of a tensor; the product of two fits
constexpr const char* kKinds[] = {"parameters", "moment1", "moment2"};

std::string dataset(const std::string& kind, const std::string& factor) { return kind + "/" + factor; }

// A number of the manifest: its hash says that nobody changed it by accident, not that it makes sense.
int64_t whole_number(const json& value, uint64_t most, const fs::path& manifest) {
  if (!value.is_number_unsigned() || value.get<uint64_t>() > most) {
    fail(Fault::bad_data, "{}: {} stands where a whole number from 0 to {} is expected", manifest.string(),
         clipped(value.dump()), most);
  }
  return value.get<int64_t>();
}

// A path that cannot lead out of the checkpoint.
bool stays_inside(const fs::path& name) {
  return !name.empty() && name.is_relative() && name.lexically_normal() == name && *name.begin() != "..";
}

// This rank's pieces of what trains, in a file of its own; returns their list. A factor that every tp rank holds whole
// is the first one's.
json write_pieces(const fs::path& path, const Trainables& trainables, Backend& backend, int tp_rank) {
  json pieces = json::array();
  hdf5::File file = hdf5::File::create(path);
  std::vector<float> values;
  for (const Slice& f : trainables.slices()) {
    if (f.whole && tp_rank != 0) continue;
    values.resize(static_cast<size_t>(f.size()));
    const Tensor flats[] = {trainables.parameters, trainables.moment1, trainables.moment2};
    for (size_t kind = 0; kind < 3; ++kind) {
      backend.download(view(flats[kind], f), values.data());
      file.write(dataset(kKinds[kind], f.name), values, f.col_count);
    }
    pieces.push_back({{"name", f.name},
                      {"shape", {f.rows, f.cols}},
                      {"rows", {f.row_begin, f.row_count}},
                      {"cols", {f.col_begin, f.col_count}},
                      {"file", path.filename().string()}});
  }
  file.close();
  sync_file(path);
  return pieces;
}

json json_of(const BestValidation& best) {
  return {{"step", best.step}, {"loss", best.loss}, {"last", best.last}, {"since", best.since}};
}

BestValidation read_best(const json& manifest, const fs::path& path) {
  const auto found = manifest.find("best_validation");
  if (found == manifest.end()) return {};  // from before there was one
  const auto steps = [&](const char* key) { return whole_number(found->at(key), kMostSteps, path); };
  return {steps("step"), found->at("loss").get<double>(), steps("last"), steps("since")};
}

// Of the ranks' files and pieces, each a JSON text, or none where a rank has no file.
json manifest_of(const CheckpointState& state, const MeshShape& mesh, const std::vector<std::string>& ranks) {
  json manifest = {{"format", "drover checkpoint"},
                   {"version", kVersion},
                   {"step", state.step},
                   {"epoch", state.epoch},
                   {"step_in_epoch", state.step_in_epoch},
                   {"identity", state.identity},
                   {"adapter_config", write_adapter_config(state.adapter)},
                   {"mesh", {{"tp", mesh.tp()}, {"pp", mesh.pp()}, {"dp", mesh.dp()}}},
                   {"best_validation", json_of(state.best)},
                   {"files", json::array()},
                   {"tensors", json::array()}};
  for (const std::string& text : ranks) {
    if (text.empty()) continue;
    const json part = json::parse(text);
    manifest["files"].push_back(part["file"]);
    for (const json& piece : part["pieces"]) manifest["tensors"].push_back(piece);
  }
  return manifest;
}

json description_of(const fs::path& directory, const std::string& name) {
  const fs::path file = directory / name;
  return {{"name", name}, {"bytes", fs::file_size(file)}, {"sha256", sha256_file(file)}};
}

// The manifest, as it was written; json::exception where it is none.
json verified_manifest(const fs::path& directory) {
  const fs::path path = directory / "manifest.json";
  json manifest = parse_json(read_text(path, size_t{256} << 20), path.string());
  if (manifest.at("format") != "drover checkpoint")
    fail(Fault::bad_data, "{} is not a checkpoint's manifest", path.string());
  if (manifest.at("version") != kVersion) {
    fail(Fault::bad_data, "{}: the checkpoint has version {}, this program reads version {}", path.string(),
         clipped(manifest["version"].dump()), kVersion);
  }
  const std::string hash = manifest.at("hash");
  manifest.erase("hash");
  if (sha256_hex(manifest.dump()) != hash)
    fail(Fault::corruption, "{}: the manifest's own hash does not fit its text; the file was changed or damaged",
         path.string());
  return manifest;
}

// Fails where a file is not as the manifest describes it.
void verify_file(const fs::path& directory, const json& file) {
  const fs::path manifest = directory / "manifest.json";
  const std::string name = file.at("name").get<std::string>();
  if (!stays_inside(name))
    fail(Fault::bad_data, "{}: \"{}\" is not the name of a file of the checkpoint", manifest.string(), clipped(name));
  const fs::path at = directory / name;
  std::error_code ignored;
  if (!fs::is_regular_file(at, ignored)) {
    if (!fs::exists(manifest)) fail(Fault::io, "{} was removed while it was read", directory.string());
    fail(Fault::bad_data, "{} is missing from the checkpoint", at.string());
  }
  if (fs::file_size(at) != file.at("bytes").get<uint64_t>()) {
    fail(Fault::bad_data, "{} has {} bytes, the manifest says {}; the file was cut off or changed", at.string(),
         fs::file_size(at), file["bytes"].dump());
  }
  if (sha256_file(at) != file.at("sha256").get<std::string>())
    fail(Fault::corruption, "{}: its SHA-256 is not the manifest's; the file was changed or damaged", at.string());
}

}  // namespace

void save_checkpoint(const fs::path& run, const CheckpointState& state, const Trainables& trainables, Backend& backend,
                     const Mesh& mesh) {
  const fs::path final = run / fmt::format("step-{}", state.step),
                 temporary = run / fmt::format("step-{}.tmp", state.step);
  const int rank = mesh.world->rank();
  together(*mesh.world, [&] {
    if (rank != 0) return;
    fs::remove_all(temporary);
    make_directories(temporary);
  });

  const bool writes = mesh.position.dp() == 0;  // replicas hold the same
  const fs::path path = temporary / fmt::format("rank-{:05d}.h5", rank);
  json pieces;
  together(*mesh.world, [&] {
    if (writes) pieces = write_pieces(path, trainables, backend, mesh.position.tp());
  });
  std::string mine;
  if (writes) {
    mine = json{{"file", description_of(temporary, path.filename().string())}, {"pieces", pieces}}.dump();
  }
  const std::vector<std::string> all = mesh.world->gather_strings(mine);
  together(*mesh.world, [&] {
    if (rank != 0) return;
    json manifest = manifest_of(state, mesh.shape, all);
    const Checkpoint written(temporary, json::parse(manifest.dump()));  // as it will be read
    FactorShapes shapes;
    for (const std::string& name : written.factor_names()) shapes[name] = written.shape(name);
    write_adapter(
        temporary / "adapter", state.adapter, shapes,
        [&](const std::string& name) { return written.parameters_of(name); }, DType::f32);
    for (const char* name : {"adapter/adapter_config.json", "adapter/adapter_model.safetensors"}) {
      manifest["files"].push_back(description_of(temporary, name));
    }
    manifest["hash"] = sha256_hex(manifest.dump());
    write_text(temporary / "manifest.json", manifest.dump(1));
    sync_directory(temporary);
    rename_durably(temporary, final);
  });
}

bool Checkpoint::is_whole(const Factor& f) {
  int64_t covered = 0;
  for (const Piece& p : f.pieces) {
    covered += p.rows * p.cols;
    if (p.row_begin + p.rows > f.rows || p.col_begin + p.cols > f.cols || covered > f.rows * f.cols) return false;
  }
  return covered == f.rows * f.cols;
}

Checkpoint::Checkpoint(const fs::path& directory, const json& manifest) : directory_(directory) {
  const fs::path path = directory / "manifest.json";
  const auto steps = [&](const char* key) { return whole_number(manifest.at(key), kMostSteps, path); };
  state_ = {steps("step"),
            manifest.at("identity"),
            steps("epoch"),
            steps("step_in_epoch"),
            parse_adapter_config(manifest.at("adapter_config").get<std::string>(), path.string()),
            read_best(manifest, path)};
  std::set<std::string> files;
  for (const json& file : manifest.at("files")) files.insert(file.at("name").get<std::string>());
  for (const json& t : manifest.at("tensors")) {
    Factor& f = factors_[t.at("name").get<std::string>()];
    const auto side = [&](const char* key, size_t i) { return whole_number(t.at(key).at(i), kLargestSide, path); };
    f.rows = side("shape", 0);
    f.cols = side("shape", 1);
    f.pieces.push_back({t.at("file"), side("rows", 0), side("rows", 1), side("cols", 0), side("cols", 1)});
    if (files.count(f.pieces.back().file) == 0) {
      fail(Fault::bad_data, "{}: {} lies in \"{}\", which is not one of the checkpoint's files", path.string(),
           clipped(t["name"].get<std::string>()), clipped(f.pieces.back().file));
    }
  }
}

Checkpoint Checkpoint::open(const fs::path& directory) {
  const fs::path path = directory / "manifest.json";
  const auto hold = std::make_shared<FileHold>(FileHold::shared(path));
  try {
    const json manifest = verified_manifest(directory);
    for (const json& file : manifest.at("files")) verify_file(directory, file);
    Checkpoint c(directory, manifest);
    c.hold_ = hold;
    for (const auto& [name, f] : c.factors_) {
      if (!is_whole(f))
        fail(Fault::bad_data, "{}: the pieces of {} do not make up the tensor", path.string(), clipped(name));
    }
    return c;
  } catch (const json::exception& error) {
    fail(Fault::bad_data, "{} is not a checkpoint's manifest: {}", path.string(), json_problem(error));
  }
}

std::vector<std::pair<int64_t, fs::path>> checkpoint_directories(const fs::path& run) {
  std::vector<std::pair<int64_t, fs::path>> found;
  std::error_code code;
  for (const fs::directory_entry& entry : fs::directory_iterator(run, code)) {
    const std::string name = entry.path().filename().string();
    if (!name.starts_with("step-") || name.size() == 5 || name.size() > 5 + kMostDigits ||
        name.find_first_not_of("0123456789", 5) != std::string::npos)
      continue;
    found.emplace_back(std::stoll(name.substr(5)), entry.path());
  }
  std::sort(found.begin(), found.end());
  return found;
}

std::optional<Checkpoint> Checkpoint::latest(const fs::path& run, const std::function<void(const std::string&)>& warn) {
  // A run that is at work may prune one checkpoint after the other before each is opened; there is a newer one then.
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    bool vanished = false;
    const auto all = checkpoint_directories(run);
    for (auto entry = all.rbegin(); entry != all.rend(); ++entry) {
      std::string trouble;
      try {
        return Checkpoint::open(entry->second);
      } catch (const Error& error) {
        trouble = error.what();
      } catch (const fs::filesystem_error& error) {
        trouble = error.what();
      }
      if (fs::exists(entry->second)) {
        warn(fmt::format("the checkpoint {} is passed over: {}", entry->second.string(), trouble));
      } else {
        vanished = true;
      }
    }
    if (!vanished) return std::nullopt;
  }
  fail(Fault::io, "{}: its checkpoints were removed faster than they could be opened; try again", run.string());
}

fs::path verified_adapter(const fs::path& checkpoint) {
  const fs::path path = checkpoint / "manifest.json";
  try {
    const json manifest = verified_manifest(checkpoint);
    int found = 0;
    for (const json& file : manifest.at("files")) {
      if (!file.at("name").get<std::string>().starts_with("adapter/")) continue;
      verify_file(checkpoint, file);
      ++found;
    }
    if (found == 2) return checkpoint / "adapter";
    fail(Fault::bad_data, "{} has no adapter in PEFT's form; an older program wrote it", checkpoint.string());
  } catch (const json::exception& error) {
    fail(Fault::bad_data, "{} is not a checkpoint's manifest: {}", path.string(), json_problem(error));
  }
}

std::vector<std::string> Checkpoint::factor_names() const {
  std::vector<std::string> names;
  for (const auto& [name, factor] : factors_) names.push_back(name);
  return names;
}

std::pair<int64_t, int64_t> Checkpoint::shape(const std::string& factor) const {
  return {factors_.at(factor).rows, factors_.at(factor).cols};
}

void Checkpoint::read(const std::string& kind, const std::string& factor, int64_t row_begin, int64_t rows,
                      int64_t col_begin, int64_t cols, float* out) const {
  for (const Piece& p : factors_.at(factor).pieces) {
    const int64_t r0 = std::max(row_begin, p.row_begin), r1 = std::min(row_begin + rows, p.row_begin + p.rows);
    const int64_t c0 = std::max(col_begin, p.col_begin), c1 = std::min(col_begin + cols, p.col_begin + p.cols);
    if (r0 >= r1 || c0 >= c1) continue;
    if (!fs::exists(directory_ / p.file)) fail(Fault::io, "{} was removed while it was read", directory_.string());
    const hdf5::File file = hdf5::File::open(directory_ / p.file);
    const std::vector<float> values = file.read_rows<float>(dataset(kind, factor), r0 - p.row_begin, r1 - r0);
    if (static_cast<int64_t>(values.size()) != (r1 - r0) * p.cols) {
      fail(Fault::bad_data, "{}: {} does not have the {} columns that the manifest says",
           (directory_ / p.file).string(), dataset(kind, factor), p.cols);
    }
    for (int64_t r = r0; r < r1; ++r) {
      const float* from = values.data() + (r - r0) * p.cols + (c0 - p.col_begin);
      std::copy(from, from + (c1 - c0), out + (r - row_begin) * cols + (c0 - col_begin));
    }
  }
}

AdapterMatrix Checkpoint::parameters_of(const std::string& factor) const {
  const auto [rows, cols] = shape(factor);
  AdapterMatrix m{rows, cols, std::vector<float>(static_cast<size_t>(rows * cols))};
  read("parameters", factor, 0, rows, 0, cols, m.values.data());
  return m;
}

void Checkpoint::load(Trainables& trainables, Backend& backend) const {
  std::vector<float> values;
  for (const Slice& f : trainables.slices()) {
    const auto found = factors_.find(f.name);
    if (found == factors_.end())
      fail(Fault::bad_data, "{}: the checkpoint has no tensor {}", directory_.string(), f.name);
    if (found->second.rows != f.rows || found->second.cols != f.cols) {
      fail(Fault::bad_data, "{}: {} has the shape ({}, {}), the run needs ({}, {})", directory_.string(), f.name,
           found->second.rows, found->second.cols, f.rows, f.cols);
    }
    values.resize(static_cast<size_t>(f.size()));
    const Tensor flats[] = {trainables.parameters, trainables.moment1, trainables.moment2};
    for (size_t kind = 0; kind < 3; ++kind) {
      if (flats[kind].empty()) continue;
      read(kKinds[kind], f.name, f.row_begin, f.row_count, f.col_begin, f.col_count, values.data());
      backend.upload(values.data(), view(flats[kind], f));
    }
  }
}

void clean_up(const fs::path& run) {
  std::error_code code;
  for (const fs::directory_entry& entry : fs::directory_iterator(run, code)) {
    const std::string name = entry.path().filename().string();
    if (name.starts_with("step-") && name.ends_with(".tmp")) fs::remove_all(entry.path(), code);
  }
}

SetAside set_aside(const fs::path& run, int64_t last_step) {
  SetAside moved;
  for (const auto& [step, path] : checkpoint_directories(run))
    if (step > last_step) moved.names.push_back(path.filename().string());
  if (last_step < 0) {
    for (const fs::directory_entry& entry : fs::directory_iterator(run)) {
      const std::string name = entry.path().filename().string();
      if (name == "metrics.jsonl" || name == "adapter" || name == "tensorboard" || name == "trace" ||
          name.starts_with("answers-step-"))
        moved.names.push_back(name);
    }
  }
  if (moved.names.empty()) return moved;
  moved.to = run / "set-aside";
  for (int number = 2; fs::exists(moved.to); ++number) moved.to = run / fmt::format("set-aside-{}", number);
  make_directories(moved.to);
  for (const std::string& name : moved.names) rename_durably(run / name, moved.to / name);
  return moved;
}

void prune_checkpoints(const fs::path& run, int64_t keep, int64_t best) {
  const auto all = checkpoint_directories(run);
  const int64_t surplus = static_cast<int64_t>(all.size()) - keep;
  if (surplus <= 0) return;
  try {
    Checkpoint::open(all.back().second);  // older ones may go only once the newest verifies
  } catch (const Error&) {
    return;
  }
  for (int64_t i = 0; i < surplus; ++i) {
    const auto& [step, directory] = all[static_cast<size_t>(i)];
    if (step == best) continue;
    const fs::path manifest = directory / "manifest.json";
    const std::optional<FileHold> hold = FileHold::alone_if_free(manifest);
    if (!hold && fs::exists(manifest)) continue;  // it is being read: its turn comes after a later save
    // It moves at once to a name that `clean_up` knows, file by file after that.
    const fs::path leaving = directory.string() + ".tmp";
    fs::remove_all(leaving);
    fs::rename(directory, leaving);
    fs::remove_all(leaving);
  }
}

}  // namespace drover
