#include "launch/serve/answer_routes.h"

#include <random>

#include "kernels/base/hash.h"
#include "kernels/base/log.h"
#include "launch/serve/answer_group.h"
#include "launch/serve/rendering.h"
#include "launch/version.h"

namespace drover {

namespace {

std::string drawn_id(const char* prefix) {
  thread_local std::random_device device;
  return fmt::format("{}-{:08x}{:08x}{:08x}", prefix, device(), device(), device());
}

// The same for the same program, base and adapter.
std::string fingerprint_of(const Serving& serving, const ServedModel& model) {
  return "fp_" + sha256_hex(version_text() + serving.models.base()->root.string() + model.weights).substr(0, 12);
}

WriterParts parts_of(const Serving& serving, const Call& call, const AnswerOrder& order, const char* prefix) {
  return {.call = call,
          .tokenizer = serving.tokenizer,
          .head = {.head = {.id = drawn_id(prefix),
                            .created = std::time(nullptr),
                            .model = order.model->id,
                            .fingerprint = fingerprint_of(serving, *order.model)},
                   .usage = order.options.include_usage},
          .stream = order.options.stream,
          .answers = order.prompts.size() * static_cast<size_t>(order.options.n)};
}

void check_limits(const ServeSettings& s, const openai::AnswerOptions& o) {
  if (o.n > s.most_answers) {
    throw openai::invalid_request(
        "n", fmt::format("'n' is {}; this server gives at most {} answers to a prompt", o.n, s.most_answers));
  }
  if (std::ssize(o.stop) > s.most_stops) {
    throw openai::invalid_request(
        "stop", fmt::format("'stop' has {} texts; this server takes at most {}", o.stop.size(), s.most_stops));
  }
}

// What the answer is held to; empty: nothing.
std::string form_of(const openai::ChatRequest& asked) {
  using Choice = openai::ToolChoice::Kind;
  using Format = openai::ResponseFormat::Kind;
  const bool calls = asked.tool_choice.kind == Choice::required || asked.tool_choice.kind == Choice::named;
  if (calls && asked.response_format.kind != Format::text) {
    throw openai::invalid_request("response_format", "an answer that 'tool_choice' makes a call has no other form");
  }
  OrderedJson form;
  if (calls) {
    form = {{"kind", "tools"}, {"tools", asked.dialog.tools}, {"parallel", asked.parallel_tool_calls}};
    if (asked.tool_choice.kind == Choice::named) form["name"] = asked.tool_choice.name;
  } else if (asked.response_format.kind == Format::json_object) {
    form = {{"kind", "json_object"}};
  } else if (asked.response_format.kind == Format::json_schema) {
    form = {
        {"kind", "json_schema"}, {"schema", asked.response_format.schema}, {"strict", asked.response_format.strict}};
  }
  return form.is_null() ? std::string() : form.dump();
}

// ApiError where no filter can be made of the order's form; what was made is kept for the passes.
void check_form(const Serving& serving, const AnswerOrder& order) {
  if (order.form.empty()) return;
  const char* field = order.form.starts_with("{\"kind\":\"tools\"") ? "tool_choice" : "response_format";
  if (order.options.ignore_eos) {
    throw openai::invalid_request("ignore_eos", fmt::format("'ignore_eos' does not go together with '{}'", field));
  }
  try {
    serving.grammars.filter(order.form, stop_ids_of(order));
  } catch (const Error& error) {
    throw openai::api_error_of(error, field);
  }
}

void log_prompts(const Serving& serving, const AnswerOrder& order) {
  if (!serving.settings.log_prompts) return;
  for (const auto& ids : order.prompts) {
    log::info("prompt: {}", OrderedJson(serving.tokenizer.decode(ids, false)).dump());
  }
}

}  // namespace

// A body may have megabytes, and an answer takes minutes: what is read is let go.
void answer_chat(Serving& serving, Call call) {
  const openai::ChatRequest asked = openai::parse_chat(call.request.body, serving.defaults);
  AnswerOrder order{.model = find_model(serving, asked.model),
                    .options = asked.options,
                    .prompts = {},
                    .preset = {},
                    .prompt_logprobs = asked.options.prompt_logprobs};
  call.request.body = {};
  check_limits(serving.settings, asked.options);
  order.form = form_of(asked);
  check_form(serving, order);
  order.prompts.push_back(render_dialog(serving, *order.model, asked.dialog));
  log_prompts(serving, order);
  auto writer = make_chat_writer(parts_of(serving, call, order, "chatcmpl"), asked);
  std::make_shared<AnswerGroup>(serving, std::move(call), std::move(order), std::move(writer))->start();
}

void answer_completion(Serving& serving, Call call) {
  const openai::CompletionRequest asked = openai::parse_completion(call.request.body, serving.defaults);
  AnswerOrder order{.model = find_model(serving, asked.model),
                    .options = asked.options,
                    .prompts = {},
                    .preset = openai::kCompletionTokens,
                    .prompt_logprobs = asked.scored_prompt(),
                    .stop_entries = true};
  call.request.body = {};
  check_limits(serving.settings, asked.options);
  for (const auto& prompt : asked.prompts) {
    if (const auto* ids = std::get_if<std::vector<int32_t>>(&prompt)) {
      order.prompts.push_back(*ids);
    } else {
      order.prompts.push_back(text_ids(serving, std::get<std::string>(prompt), asked.add_special_tokens));
    }
  }
  log_prompts(serving, order);
  auto writer = make_text_writer(parts_of(serving, call, order, "cmpl"), asked, order.prompts);
  std::make_shared<AnswerGroup>(serving, std::move(call), std::move(order), std::move(writer))->start();
}

}  // namespace drover
