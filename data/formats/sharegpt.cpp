// ShareGPT's dialogs. Source: how LLaMA-Factory and Axolotl read them (human, gpt, observation, function_call).
#include <array>

#include "data/formats/fields.h"
#include "data/formats/formats.h"
#include "data/formats/messages.h"
#include "kernels/base/error.h"

namespace drover {

namespace {

constexpr std::array<const char*, 3> kFields{"conversations", "tools", "system"};

struct Speaker {
  const char *from, *role;
};
constexpr const char* kCalls = "function_call";
constexpr std::array kSpeakers{Speaker{"human", "user"},       Speaker{"user", "user"},
                               Speaker{"gpt", "assistant"},    Speaker{"assistant", "assistant"},
                               Speaker{"system", "system"},    Speaker{"tool", "tool"},
                               Speaker{"observation", "tool"}, Speaker{kCalls, "assistant"}};

const Speaker* speaker_of(const std::string& from) {
  for (const Speaker& speaker : kSpeakers) {
    if (from == speaker.from) return &speaker;
  }
  return nullptr;
}

// {"name": …, "arguments": …}, or a list of them, as text.
OrderedJson calls_of(const OrderedJson& value) {
  if (!value.is_string()) wrong("the value of a function_call must be a string of JSON");
  OrderedJson calls = parse_ordered_json(value.get<std::string>(), "the value of a function_call");
  if (calls.is_object()) calls = OrderedJson::array({calls});
  if (!calls.is_array()) wrong("a function_call must hold {\"name\": …, \"arguments\": …}, or a list of them");
  OrderedJson out = OrderedJson::array();
  for (const OrderedJson& call : calls) out.push_back({{"type", "function"}, {"function", call}});
  return out;
}

Message turn_of(const OrderedJson& turn) {
  const bool from = turn.is_object() && turn.contains("from"), role = turn.is_object() && turn.contains("role");
  if (from == role || turn.contains(from ? "content" : "value"))
    wrong("a turn needs \"from\" and \"value\", or \"role\" and \"content\"");
  const char *who = from ? "from" : "role", *what = from ? "value" : "content";
  const std::string name = text_of(turn, who);
  const Speaker* speaker = speaker_of(name);
  if (!speaker && from) {
    std::vector<const char*> known;
    for (const Speaker& s : kSpeakers) known.push_back(s.from);
    wrong(fmt::format("\"from\" is \"{}\"; allowed are {}", clipped(name), fmt::join(known, ", ")));
  }
  const bool calls = name == kCalls;
  OrderedJson message{{"role", speaker ? speaker->role : name}};
  for (const auto& [field, value] : turn.items()) {
    if (field == who) continue;
    if (field != what) {
      message[field] = value;
    } else if (calls) {
      message["tool_calls"] = calls_of(value);
    } else {
      message["content"] = value;
    }
  }
  return message_of(message);
}

void read_sharegpt(const OrderedJson& j, Row& row) {
  const OrderedJson& turns = j["conversations"];
  if (!turns.is_array() || turns.empty()) wrong("\"conversations\" must be a list with at least one turn");
  for (const OrderedJson& turn : turns) row.messages.push_back(turn_of(turn));
  read_tools_and_system(j, row);
}

}  // namespace

const RowFormatSpec kShareGptFormat = {RowFormat::sharegpt, kFields, std::span(kFields).first(1), read_sharegpt};

}  // namespace drover
