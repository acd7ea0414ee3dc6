// The table of machines: what ships, which of two figures counts, and what is wrong with a file of one's own.
#include "launch/planning/hardware.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "kernels/base/error.h"

namespace drover {
namespace {

using testing::AllOf;
using testing::HasSubstr;

const char* const kKeys[] = {"memory_bytes",
                             "bf16_peak_flops_per_second",
                             "fp8_peak_flops_per_second",
                             "bf16_linear_flops_per_second",
                             "fp8_linear_flops_per_second",
                             "attention_forward_flops_per_second",
                             "attention_backward_flops_per_second",
                             "memory_bytes_per_second",
                             "host_memory_bytes",
                             "host_link_bytes_per_second",
                             "node_link_bytes_per_second",
                             "node_link_seconds",
                             "network_bytes_per_second",
                             "network_seconds",
                             "gpu_watts",
                             "node_watts",
                             "gpu_hour_dollars"};

std::string table(const std::string& key, const std::string& value) {
  std::string text = "x1:\n  full_name: X\n  supported: true\n  gpus_a_node: 8\n";
  for (const char* k : kKeys) {
    const std::string given = k == key ? value : "{value: 2, source: s, date: 2024-07-23}";
    if (!given.empty()) text += fmt::format("  {}: {}\n", k, given);
  }
  return text;
}

std::string refusal(const std::string& text) {
  try {
    parse_hardware("t.yaml", text);
  } catch (const Error& error) {
    EXPECT_EQ(error.fault(), Fault::bad_recipe);
    return error.what();
  }
  return "not refused";
}

TEST(Hardware, ShipsFiveMachinesWhoseFiguresAllHaveSources) {
  const Hardware& shipped = shipped_hardware();
  std::vector<std::string> names;
  for (const Machine& m : shipped.machines) {
    names.push_back(m.name);
    EXPECT_EQ(m.supported, m.name == "h100" || m.name == "h200") << m.name;
    ASSERT_EQ(m.cited.size(), std::size(kKeys)) << m.name;
    for (size_t i = 0; i < m.cited.size(); ++i) {
      EXPECT_EQ(m.cited[i].key, kKeys[i]);
      EXPECT_GT(m.cited[i].figure.value, 0) << m.name << " " << m.cited[i].key;
      EXPECT_FALSE(m.cited[i].figure.source.empty() || m.cited[i].figure.date.empty()) << m.name;
    }
    // What is reached is below the peak, a GPU draws less than its share of a node, the network is slower than the
    // node.
    EXPECT_LT(m.bf16_linear_flops_per_second, m.bf16_peak_flops_per_second) << m.name;
    EXPECT_LT(m.fp8_linear_flops_per_second, m.fp8_peak_flops_per_second) << m.name;
    EXPECT_LT(m.attention_backward_flops_per_second, m.attention_forward_flops_per_second) << m.name;
    EXPECT_LT(m.gpu_watts * static_cast<double>(m.gpus_a_node), m.node_watts) << m.name;
    EXPECT_LT(m.network_bytes_per_second, m.node_link_bytes_per_second) << m.name;
  }
  EXPECT_EQ(names, (std::vector<std::string>{"h100", "h200", "b200", "gb200", "mi300x"}));
  EXPECT_EQ(machine(shipped, "h100").bf16_peak_flops_per_second, 989e12);
  EXPECT_EQ(machine(shipped, "gb200").gpus_a_node, 4);
}

TEST(Hardware, OfTwoFiguresTheCautiousOneCounts) {
  const std::string two = "[{value: 5, source: a, date: 2024}, {value: 3, source: b, date: 2025-01}]";
  const auto read = [&](const char* key) { return parse_hardware("t.yaml", table(key, two)).machines[0]; };
  EXPECT_EQ(read("memory_bytes_per_second").memory_bytes_per_second, 3);
  EXPECT_EQ(read("node_link_seconds").node_link_seconds, 5);
  EXPECT_EQ(read("gpu_hour_dollars").gpu_hour_dollars, 5);
  EXPECT_EQ(read("node_watts").node_watts, 5);
  const Machine m = read("memory_bytes");
  EXPECT_EQ(m.memory_bytes, 3);
  EXPECT_EQ(m.cited[0].figure, (Figure{3, "b", "2025-01"}));
}

TEST(Hardware, AnUnknownNameIsAnsweredWithTheNames) {
  try {
    machine(shipped_hardware(), "h900");
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.fault(), Fault::usage);
    EXPECT_THAT(error.what(), HasSubstr("knows no GPU \"h900\"; it has h100, h200, b200, gb200, mi300x"));
  }
}

TEST(Hardware, WhatIsWrongIsNamedWithItsPlace) {
  EXPECT_THAT(refusal(table("memory_bytes", "")), HasSubstr("t.yaml:2:3: x1.memory_bytes is missing"));
  EXPECT_THAT(refusal(table("memory_bytes", "80")),
              HasSubstr("t.yaml:5:3: x1.memory_bytes: expected {value, source, date}, or a list of two such"));
  for (const char* value : {"0", "-1", "0.0"}) {
    EXPECT_THAT(refusal(table("node_watts", fmt::format("{{value: {}, source: s, date: 2024}}", value))),
                AllOf(HasSubstr("1 problem in the table of machines t.yaml"), HasSubstr("x1.node_watts.value: "),
                      HasSubstr("is out of range; allowed: above 0")))
        << value;
  }
  EXPECT_THAT(refusal(table("node_watts", "{value: .inf, source: s, date: 2024}")), HasSubstr("expected a decimal"));
  EXPECT_THAT(refusal(table("node_watts", "{value: 1, date: 2024}")), HasSubstr("x1.node_watts.source is missing"));
  EXPECT_THAT(refusal(table("node_watts", "{value: 1, source: s, date: May}")), HasSubstr("May is no date"));
  EXPECT_THAT(refusal(table("node_watts", "{value: 1, source: s, date: 2024-13}")), HasSubstr("2024-13 is no date"));
  EXPECT_THAT(refusal(table("node_watts", "{value: 1, source: s, date: 2024, unit: W}")),
              HasSubstr("x1.node_watts.unit is unknown; allowed: value, source, date"));
  EXPECT_THAT(refusal(table("node_watts", "[{value: 1, source: s, date: 2024}]")), HasSubstr("a list of two, got 1"));
  EXPECT_THAT(refusal(table("", "") + "  tensor_cores: 4\n"),
              HasSubstr("x1.tensor_cores is unknown; allowed: full_name"));
  EXPECT_THAT(refusal("x1: 3\n"),
              HasSubstr("1 problem in the table of machines t.yaml:\n  t.yaml:1:1: x1 is a mapping"));
  EXPECT_THAT(refusal(""), HasSubstr("the table of machines is empty; it needs at least one GPU"));
  EXPECT_THAT(refusal("- x1\n"), HasSubstr("a table of machines is a mapping of GPUs"));
  EXPECT_THAT(refusal("x1: &a {}\n"), HasSubstr("anchors (&name) are not allowed in a table of machines"));
}

}  // namespace
}  // namespace drover
