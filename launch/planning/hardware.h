// What plans assume of machines: configs/planning/hardware.yaml, which is part of the program, or a file in its place.
// Every figure there has a source and a date; of two figures the one that makes a plan slower, smaller or dearer
// counts.
#pragma once
#include <string>
#include <string_view>
#include <vector>

#include "kernels/base/file.h"
#include "launch/planning/field_reader.h"

namespace drover {

// One GPU of a kind in its usual node. Rates are those that programs reach unless they are peaks; all are above 0.
struct Machine {
  std::string name;        // "h100"
  std::string full_name;   // "NVIDIA H100 SXM 80 GB"
  bool supported = false;  // Drover runs on it; else it can only be planned for
  int64_t gpus_a_node = 0;

  double memory_bytes = 0;
  double bf16_peak_flops_per_second = 0, fp8_peak_flops_per_second = 0;      // dense products
  double bf16_linear_flops_per_second = 0, fp8_linear_flops_per_second = 0;  // large products of linears
  // Causal, over rows of about 4096 tokens; FLOPs counted without the half that the mask hides.
  double attention_forward_flops_per_second = 0, attention_backward_flops_per_second = 0;
  double memory_bytes_per_second = 0;
  double host_memory_bytes = 0;           // of a node
  double host_link_bytes_per_second = 0;  // between a GPU and the host's memory, each way
  double node_link_bytes_per_second = 0;  // bus bandwidth of a collective inside a node, as nccl-tests count it
  double node_link_seconds = 0;           // what a collective takes however little it carries
  double network_bytes_per_second = 0;    // between nodes, a GPU's share
  double network_seconds = 0;             // of a message between nodes
  double gpu_watts = 0, node_watts = 0;   // at their highest; a node's with its GPUs
  double gpu_hour_dollars = 0;            // rented on demand

  struct Cited {
    std::string key;
    Figure figure;
  };
  std::vector<Cited> cited;  // what each of the figures above is, in the order of the file's keys here
};

struct Hardware {
  std::string where;  // for messages
  std::vector<Machine> machines;
};

// The table that the program carries. bad_recipe with all problems of a file, missing_input where there is none.
const Hardware& shipped_hardware();
Hardware read_hardware(const fs::path& file);
Hardware parse_hardware(const std::string& where, const std::string& text);

// usage, with the names that there are, for another name.
const Machine& machine(const Hardware& hardware, std::string_view name);

}  // namespace drover
