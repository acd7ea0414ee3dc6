// What a search found, for people and as JSON.
#include "launch/plan_search.h"

namespace drover {

namespace {

using nlohmann::ordered_json;

double gib(double bytes) { return bytes / (1 << 30); }

std::string row(const LayoutPlan& p) {
  const Layout& l = p.layout;
  return fmt::format(
      "{:>5} {:>3} {:>3} {:>4} {:>6} {:>10} {:>8} {:>9} {:>7.1f} {:>9.2f} {:>9.0f} {:>8.0f} {:>6.1f} {:>7.1f} {:>7.1f}",
      l.shape.size(), l.shape.tp(), l.shape.pp(), l.shape.dp(), l.micro_batch, l.recompute ? "full" : "none",
      word_of(l.weights), l.host ? "host" : "resident", gib(static_cast<double>(p.bytes)), p.step_seconds,
      p.tokens_per_second, p.tokens_per_second_of_a_gpu(), 100 * p.mfu, 100 * p.bubble, 100 * p.exposed);
}

std::string heading() {
  return fmt::format("{:>5} {:>3} {:>3} {:>4} {:>6} {:>10} {:>8} {:>9} {:>7} {:>9} {:>9} {:>8} {:>6} {:>7} {:>7}\n",
                     "GPUs", "tp", "pp", "dp", "micro", "recompute", "weights", "where", "GiB", "step s", "tokens/s",
                     "a GPU", "MFU %", "bubble", "exposed");
}

// Why `p` is slower than `best`, by what differs most.
std::string reason(const LayoutPlan& p, const LayoutPlan& best) {
  std::vector<std::string> reasons;
  const double behind = 100 * (1 - p.tokens_per_second_of_a_gpu() / best.tokens_per_second_of_a_gpu());
  if (p.layout.recompute && !best.layout.recompute) reasons.push_back("it computes activations twice");
  if (p.layout.host && !best.layout.host) reasons.push_back("it copies weights from the host");
  if (p.bubble > best.bubble + 0.005) reasons.push_back("its stages wait longer for each other");
  if (p.exposed > best.exposed + 0.005 && p.bubble <= best.bubble + 0.005)
    reasons.push_back("its ranks wait longer for sums and messages");
  if (p.layout.weights != best.layout.weights && p.layout.weights != WeightFormat::as_is)
    reasons.push_back(fmt::format("its weights are widened from {}", word_of(p.layout.weights)));
  if (behind < 0.1) return "as fast as the first";
  if (reasons.empty() &&
      (p.layout.shape.tp() != best.layout.shape.tp() || p.layout.micro_batch != best.layout.micro_batch))
    reasons.push_back("its products are smaller");
  if (reasons.empty()) reasons.push_back("more ranks add up their gradients");
  return fmt::format("{:.1f} % behind the first: {}", behind, fmt::join(reasons, ", "));
}

std::string why_first(const LayoutPlan& p, double room) {
  return fmt::format("{:.1f} of {:.1f} GiB are used; {:.1f} % of the step are sums that nothing hides{}",
                     gib(static_cast<double>(p.bytes)), gib(room), 100 * p.exposed,
                     p.layout.recompute && !p.layout.host ? "; without recomputing it does not fit" : "") +
         (p.host_bytes > 0 ? fmt::format("; a host holds {:.0f} GB", static_cast<double>(p.host_bytes) / 1e9) : "");
}

ordered_json json_of(const LayoutPlan& p) {
  const Layout& l = p.layout;
  return {{"gpus", l.shape.size()},
          {"tp", l.shape.tp()},
          {"pp", l.shape.pp()},
          {"dp", l.shape.dp()},
          {"micro_batch_size", l.micro_batch},
          {"activation_checkpointing", l.recompute ? "full" : "none"},
          {"weights", word_of(l.weights)},
          {"where", l.host ? "host" : "resident"},
          {"bytes", p.bytes},
          {"host_bytes_of_a_node", p.host_bytes},
          {"step_seconds", p.step_seconds},
          {"tokens_per_second", p.tokens_per_second},
          {"tokens_per_second_of_a_gpu", p.tokens_per_second_of_a_gpu()},
          {"mfu", p.mfu},
          {"bubble", p.bubble},
          {"exposed_communication", p.exposed},
          {"overrides", l.text()}};
}

ordered_json list_of(const std::vector<LayoutPlan>& plans) {
  ordered_json list = ordered_json::array();
  for (const LayoutPlan& p : plans) list.push_back(json_of(p));
  return list;
}

}  // namespace

std::string Layout::text() const {
  return fmt::format(
      "parallel.tp={} parallel.pp={} parallel.dp={} train.micro_batch_size={} memory.activation_checkpointing={} "
      "model.weights={} memory.weights={}",
      shape.tp(), shape.pp(), shape.dp(), micro_batch, recompute ? "full" : "none", word_of(weights),
      host ? "host" : "resident");
}

std::string print_search(const SearchQuestion& q, const SearchResult& r) {
  std::string text = fmt::format(
      "{} on {}{}: {} layouts counted, {} fit. Rows are full; rates are the hardware table's, not calibrated\n",
      q.read.recipe.model.path, q.machine.full_name,
      q.machine.supported ? "" : " (planned only: Drover does not run there)", r.tried, r.fitting);
  if (r.fastest.empty()) {
    const LayoutPlan& p = r.nearest.front();
    text += fmt::format("nothing fits: the nearest is short by {:.1f} GiB of {:.1f}\n{}{}\n",
                        gib(static_cast<double>(p.bytes) - r.room), gib(r.room), heading(), row(p));
    if (r.changes.empty()) return text + "no single change makes it fit: take more GPUs (--gpus)\n";
    text += "changes that make it fit, the fastest first:\n" + heading();
    for (const LayoutPlan& c : r.changes) text += row(c) + "\n      " + c.layout.text() + "\n";
    return text;
  }
  text += "the most tokens a second and GPU:\n" + heading();
  for (const LayoutPlan& p : r.fastest) {
    text +=
        row(p) + "\n      " + (&p == &r.fastest.front() ? why_first(p, r.room) : reason(p, r.fastest.front())) + "\n";
  }
  if (r.by_gpus.size() > 1) {
    text += "the best of each number of GPUs:\n" + heading();
    for (const LayoutPlan& p : r.by_gpus) text += row(p) + '\n';
  }
  return text + "the first one's recipe: " + r.fastest.front().layout.text() + '\n';
}

ordered_json search_json(const SearchQuestion& q, const SearchResult& r) {
  return {{"gpu", q.machine.name},
          {"supported", q.machine.supported},
          {"calibrated", false},
          {"memory_bytes", r.room},
          {"tried", r.tried},
          {"fitting", r.fitting},
          {"fastest", list_of(r.fastest)},
          {"by_gpus", list_of(r.by_gpus)},
          {"nearest", list_of(r.nearest)},
          {"changes", list_of(r.changes)}};
}

}  // namespace drover
