#include "trainer/export/merge.h"

#include "kernels/base/error.h"
#include "kernels/base/hash.h"
#include "kernels/base/json.h"
#include "model/files/factor.h"
#include "model/weight_table.h"
#include "trainer/export/dealt_model.h"
#include "trainer/export/merge_part.h"
#include "trainer/setup/model_check.h"

namespace drover {

namespace {

constexpr int kLayout = 2;  // of what the journal and the files of an unfinished merge hold

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

MergeReport report_of(const DealtModel::Updates& updates, const std::vector<ParamSpec>& table, BaseWeights& base,
                      const MergeSettings& settings) {
  MergeReport report{
      .weights = numbers_of(base, settings.trained_over),
      .written = settings.keep_format ? "the base's format, requantised" : "plain numbers of the base's types"};
  for (const ParamSpec& spec : table) {
    const auto found = updates.find(spec.name);
    if (found != updates.end()) {
      report.updates.push_back(found->second);
    } else if (!base.changed(spec.name)) {
      report.untouched.push_back(spec.name);
    }
  }
  return report;
}

}  // namespace

ModelConfig merged_model(const AdapterConfig& adapter, const BaseWeights& base) {
  ModelConfig config = base.config();
  if (AdapterMatcher(adapter).match(kHeadModule)) config.tied_head = false;
  return config;
}

MergeReport merge(const AdapterSource& adapter, BaseWeights& base, const fs::path& out, Backend& backend,
                  const MoreFiles& more, const CheckMerged& check, const MergeSettings& settings) {
  const std::unique_ptr<Communicator> alone = make_self_communicator("world");
  const ModelConfig config = merged_model(adapter.config, base);
  const std::vector<ParamSpec> table = weight_table(config);
  MergedRows rows(adapter, base, backend, settings.trained_over);
  MergeReport report;
  make_model({.out = out,
              .words = {"merge", "merging", "merged"},
              .max_shard_bytes = settings.max_shard_bytes,
              .parts =
                  [&] {
                    check_weights(base.directory());
                    return settings.keep_format ? kept_parts(table, adapter.config, base, rows)
                                                : plain_parts(table, base, rows);
                  },
              .identity = [&] { return identity_of(adapter, base, settings); },
              .finish =
                  [&](const fs::path& directory, const DealtModel::Updates& updates) {
                    write_text(directory / "config.json",
                               merged_config(base.directory(), config, settings.keep_format));
                    if (more.write) more.write(directory);
                    ModelDirectory back(directory);
                    check_weights(back);
                    report = report_of(updates, table, base, settings);
                    check(directory, report);
                    write_text(directory / "merge_report.json", report_json(report));
                  }},
             settings.world != nullptr ? *settings.world : *alone);
  return report;
}

}  // namespace drover
