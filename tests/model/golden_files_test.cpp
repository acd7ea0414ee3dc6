// Adapter directories that PEFT saved, read and written again; and numbers drawn by name, bit for bit.
#include <set>

#include "tests/base/scratch_directory.h"
#include "tests/model/golden.h"

namespace drover::golden {
namespace {

const char* const kAdapters[] = {"tiny-all", "tiny-patterns", "tiny-regex", "tied-all", "tiny-head", "tied-head"};

// Module path → alpha/r or alpha/√r of every linear that a configuration means.
std::map<std::string, double> scales(const ModelConfig& model, const AdapterConfig& config) {
  std::map<std::string, double> result;
  const AdapterMatcher matcher(config);
  for (const auto [layer, p] : linears_of(model)) {
    if (const auto target = matcher.match(module_path(layer, p))) result[module_path(layer, p)] = target->scale;
  }
  return result;
}

TEST(GoldenAdapterFiles, MeanWhatPeftMeans) {
  for (const char* name : kAdapters) {
    SCOPED_TRACE(name);
    const Json expected = json(std::string(name) + ".json");
    const ModelConfig model = Model(expected.at("model")).config;
    const Adapter adapter = read_adapter(directory() / "adapters" / name);
    const auto ours = scales(model, adapter.config);
    const auto theirs = expected.at("scales").get<std::map<std::string, double>>();
    ASSERT_EQ(ours.size(), theirs.size());
    for (const auto& [path, scale] : theirs) {
      ASSERT_TRUE(ours.contains(path)) << path;
      EXPECT_DOUBLE_EQ(ours.at(path), scale) << path;
    }
    check_fits(AdapterFile(directory() / "adapters" / name), model);
    size_t factors = 0;
    for (const auto& [factor, m] : adapter.matrices) {
      if (!factor_of(factor)) continue;
      ++factors;
      EXPECT_EQ(expected.at("shapes").at(stored_name(factor)), (Json{m.rows, m.cols})) << factor;
    }
    EXPECT_EQ(factors, expected.at("shapes").size());
  }
}

// The tensors' values are drawn by their names on disk.
TEST(GoldenAdapterFiles, HoldTheDrawnNumbers) {
  const Json models = json("models.json");
  for (const Json& spec : models.at("adapters")) {
    const Adapter adapter = read_adapter(directory() / "adapters" / spec.at("name"));
    const uint64_t seed = spec.at("seed");
    for (const auto& [factor, m] : adapter.matrices) {
      if (!factor_of(factor)) continue;  // weights in place of the base's
      const Json& rule = spec.at("weights").at(factor.ends_with("lora_A") ? "lora_A" : "lora_B");
      for (size_t i = 0; i < m.values.size(); ++i) {
        ASSERT_EQ(m.values[i],
                  drawn(seed, stored_name(factor), static_cast<int64_t>(i), rule.at("offset"), rule.at("scale")))
            << factor << " " << i;
      }
    }
  }
}

TEST(GoldenAdapterFiles, ComeBackAsPeftWroteThem) {
  std::vector<std::string> names(std::begin(kAdapters), std::end(kAdapters));
  names.emplace_back("tied-saved");
  for (const std::string& name : names) {
    SCOPED_TRACE(name);
    const fs::path theirs = directory() / "adapters" / name;
    const Adapter adapter = read_adapter(theirs);
    ScratchDirectory scratch;
    write_adapter(
        scratch / "adapter", adapter.config, shapes_of(adapter.matrices),
        [&](const std::string& factor) { return adapter.matrices.at(factor); }, DType::f32);
    const char* const file = "adapter_model.safetensors";
    EXPECT_TRUE(read_text(scratch / "adapter" / file, 1 << 24) == read_text(theirs / file, 1 << 24))
        << "not byte for byte";

    const Adapter back = read_adapter(scratch / "adapter");
    EXPECT_EQ(back.config, adapter.config);
    const Json written = parse_json(read_text(scratch / "adapter" / "adapter_config.json", 1 << 20), "written");
    const Json original = parse_json(read_text(theirs / "adapter_config.json", 1 << 20), "original");
    for (const char* key :
         {"peft_type", "task_type", "r", "lora_alpha", "lora_dropout", "use_rslora", "bias", "rank_pattern",
          "alpha_pattern", "base_model_name_or_path", "inference_mode", "fan_in_fan_out", "modules_to_save"}) {
      ASSERT_TRUE(written.contains(key)) << key;
      EXPECT_EQ(written.at(key), original.at(key)) << key;
    }
    const auto targets = [](const Json& config) {
      const Json& value = config.at("target_modules");
      return value.is_string() ? std::set<std::string>{value} : value.get<std::set<std::string>>();
    };
    EXPECT_EQ(targets(written), targets(original));
  }
}

TEST(GoldenDraws, AreTheSame) {
  const Json golden = json("draws.json");
  const PhiloxBlock zero = philox({}, 0, 0), ones = philox({~0u, ~0u}, ~uint64_t{0}, ~uint64_t{0});
  for (size_t i = 0; i < 4; ++i) {
    EXPECT_EQ(zero.lane[i], golden.at("philox_zero").at(i).get<uint32_t>());
    EXPECT_EQ(ones.lane[i], golden.at("philox_ones").at(i).get<uint32_t>());
  }
  for (const Json& draw : golden.at("draws")) {
    const std::string name = draw.at("name");
    const uint64_t seed = draw.at("seed");
    const PhiloxKey key = PhiloxKey::of(sha256_prefix(fmt::format("{}:{}", seed, name)));
    EXPECT_EQ(key.lo, draw.at("key").at(0).get<uint32_t>());
    EXPECT_EQ(key.hi, draw.at("key").at(1).get<uint32_t>());
    for (size_t i = 0; i < draw.at("lanes").size(); ++i) {
      EXPECT_EQ(philox(key, i / 4).lane[i % 4], draw.at("lanes").at(i).get<uint32_t>());
      const float value = drawn(seed, name, static_cast<int64_t>(i), draw.at("offset"), draw.at("scale"));
      EXPECT_EQ(value, draw.at("values").at(i).get<float>());
      EXPECT_EQ(static_cast<float>(bf16(value)), draw.at("bf16").at(i).get<float>());
    }
  }
}

}  // namespace
}  // namespace drover::golden
