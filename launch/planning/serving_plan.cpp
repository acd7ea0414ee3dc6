#include "launch/planning/serving_plan.h"

#include "kernels/base/error.h"
#include "launch/planning/cost.h"

namespace drover {

namespace {

const char* text_of(UsersLimit limit) {
  switch (limit) {
    case UsersLimit::room: return "the room for keys and values";
    case UsersLimit::time: return "the time between tokens";
    case UsersLimit::count: return "the number that is looked at";
  }
  return "";
}

std::string amount(double tokens) {
  if (tokens >= 1e9) return fmt::format("{:.4g} billion", tokens / 1e9);
  return tokens >= 1e6 ? fmt::format("{:.4g} million", tokens / 1e6) : fmt::format("{:.0f}", tokens);
}

void check(const ServingQuestion& q) {
  const ModelOnGpus& m = q.served;
  if (q.gpus % m.tp != 0) {
    fail(Fault::usage, "--gpus {} is not a multiple of --tp {}; each copy of the model takes {} GPUs", q.gpus, m.tp,
         m.tp);
  }
  const int64_t length = q.request.prompt_tokens + q.request.answer_tokens;
  if (length > m.config.max_positions) {
    fail(Fault::usage, "--prompt-tokens {} and --answer-tokens {} are more than the {} positions of the model",
         q.request.prompt_tokens, q.request.answer_tokens, m.config.max_positions);
  }
  const auto* box = std::get_if<OwnedBox>(&q.prices.machine);
  if (box != nullptr && box->gpus != q.gpus) {
    fail(Fault::bad_recipe, "the box of {} has {} GPUs, and --gpus is {}; make them the same", q.prices.where,
         box->gpus, q.gpus);
  }
}

std::string print_apis(const ServingQuestion& q, const ServingPlan& p) {
  std::string text = fmt::format("{:<26} {:>12} {:>12}  {:<22} {}\n", "against", "a month", "a million",
                                 "a box pays from", "with this traffic");
  for (const BreakEven& api : p.apis) {
    const std::string least =
        api.least_tokens_a_month ? amount(*api.least_tokens_a_month) + " a month" : "never, also when full";
    std::string when = "never: " + api.why_never;
    if (api.months && *api.months > 0) {
      when = fmt::format("paid back after {} tokens, {:.1f} months: {}", amount(*api.tokens), *api.months,
                         day_after(q.from, *api.months));
    } else if (api.months) {
      when = "at once";
    }
    text += fmt::format("{:<26} {:>12} {:>12}  {:<22} {}\n", api.api.name, money(api.api_a_month),
                        money(api.api_million_tokens), least, when);
  }
  return text;
}

}  // namespace

ServingPlan plan_serving(const ServingQuestion& q) {
  check(q);
  ServingPlan plan;
  plan.bytes = bytes_of(q.served);
  plan.most = most_users(roofline(q.served), q.request,
                         {.between_tokens_seconds = q.between_tokens_seconds, .room_tokens = plan.bytes.room_tokens});
  plan.copies = q.gpus / q.served.tp;
  const auto copies = static_cast<double>(plan.copies);
  plan.prompt_tokens_per_second = copies * plan.most.carried.prompt_tokens_per_second;
  plan.answer_tokens_per_second = copies * plan.most.carried.answer_tokens_per_second;
  // In the mix of a request: of some, only the prompt or only the answer lies in the time that is played.
  const auto prompt = static_cast<double>(q.request.prompt_tokens),
             answer = static_cast<double>(q.request.answer_tokens);
  const double tokens_per_second = plan.answer_tokens_per_second * (prompt + answer) / answer;
  const Traffic one = {q.request.prompt_tokens, q.request.answer_tokens, 1};
  const double carried = machines_cost(q.prices, q.gpus, tokens_per_second, one).tokens_a_month_of_a_box;
  plan.traffic = {q.request.prompt_tokens, q.request.answer_tokens, q.tokens_a_month.value_or(carried)};
  plan.cost = machines_cost(q.prices, q.gpus, tokens_per_second, plan.traffic);
  plan.apis = break_even(q.prices, q.gpus, tokens_per_second, plan.traffic);
  return plan;
}

std::string print_serving(const ServingQuestion& q, const ServingPlan& p) {
  const ModelOnGpus& m = q.served;
  const Carried& c = p.most.carried;
  const std::string& currency = q.prices.currency;
  const std::string gpus = m.tp == 1 ? "one GPU" : fmt::format("{} GPUs", m.tp);
  std::string text =
      fmt::format("{} in {} on {} × {}: {}\n", q.model_name, word_of(m.weights), q.gpus, m.machine.full_name,
                  p.copies == 1 ? "one copy on " + gpus : fmt::format("{} copies on {} each", p.copies, gpus));
  if (!m.machine.supported) text += fmt::format("Drover does not run on {}: this is a plan only\n", m.machine.name);
  text += fmt::format("a GPU holds {:.1f} GB of weights, and keys and values of {} tokens\n", p.bytes.weights / 1e9,
                      p.bytes.room_tokens);
  text += fmt::format(
      "prompts of {} tokens, answers of {}: {} at once ({} is the limit), {:.1f} ms between tokens ({:.1f} where one "
      "is alone), the first after {:.2f} s\n",
      q.request.prompt_tokens, q.request.answer_tokens, c.users * p.copies, text_of(p.most.limit),
      c.between_tokens_seconds * 1e3, p.most.alone.between_tokens_seconds * 1e3, c.first_token_seconds);
  text += fmt::format("{:.0f} tokens/s in, {:.0f} out; at its utilisation the box carries {} tokens a month\n",
                      p.prompt_tokens_per_second, p.answer_tokens_per_second, amount(p.cost.tokens_a_month_of_a_box));
  const std::string bought =
      p.cost.bought > 0 ? fmt::format("{} {} to buy, ", money(p.cost.bought), currency) : std::string();
  text += fmt::format("{} tokens a month: {} box{}, {}{} {} a month to run; in all {} {} a month, {} {} a million\n",
                      amount(p.traffic.tokens_a_month), p.cost.boxes, p.cost.boxes == 1 ? "" : "es", bought,
                      money(p.cost.running_a_month), currency, money(p.cost.a_month), currency,
                      money(p.cost.million_tokens), currency);
  return p.apis.empty() ? text : text + print_apis(q, p);
}

nlohmann::ordered_json serving_json(const ServingQuestion& q, const ServingPlan& p) {
  using nlohmann::ordered_json;
  const Carried& c = p.most.carried;
  const auto number = [](const std::optional<double>& value) { return value ? ordered_json(*value) : ordered_json(); };
  ordered_json apis = ordered_json::array();
  for (const BreakEven& api : p.apis) {
    apis.push_back({{"name", api.api.name},
                    {"million_tokens", api.api_million_tokens},
                    {"a_month", api.api_a_month},
                    {"least_tokens_a_month", number(api.least_tokens_a_month)},
                    {"months", number(api.months)},
                    {"tokens", number(api.tokens)},
                    {"day", api.months ? ordered_json(day_after(q.from, *api.months)) : ordered_json()}});
    if (!api.why_never.empty()) apis.back()["never"] = api.why_never;
  }
  return {{"model", q.model_name},
          {"gpu", q.served.machine.name},
          {"supported", q.served.machine.supported},
          {"gpus", q.gpus},
          {"tp", q.served.tp},
          {"weights", word_of(q.served.weights)},
          {"weights_bytes", p.bytes.weights},
          {"room_tokens", p.bytes.room_tokens},
          {"prompt_tokens", q.request.prompt_tokens},
          {"answer_tokens", q.request.answer_tokens},
          {"users", c.users * p.copies},
          {"between_tokens_seconds", c.between_tokens_seconds},
          {"between_tokens_seconds_alone", p.most.alone.between_tokens_seconds},
          {"first_token_seconds", c.first_token_seconds},
          {"prompt_tokens_per_second", p.prompt_tokens_per_second},
          {"answer_tokens_per_second", p.answer_tokens_per_second},
          {"tokens_a_month_of_a_box", p.cost.tokens_a_month_of_a_box},
          {"currency", q.prices.currency},
          {"tokens_a_month", p.traffic.tokens_a_month},
          {"boxes", p.cost.boxes},
          {"bought", p.cost.bought},
          {"running_a_month", p.cost.running_a_month},
          {"a_month", p.cost.a_month},
          {"million_tokens", p.cost.million_tokens},
          {"apis", apis}};
}

}  // namespace drover
