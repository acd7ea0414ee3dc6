#include "trainer/run/metrics.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <nlohmann/json.hpp>

#include "kernels/base/error.h"
#include "kernels/base/log.h"

namespace drover {

MetricsFile::MetricsFile(const fs::path& file, int64_t last_step) : path_(file), last_step_(last_step) {
  std::string kept;
  if (fs::exists(file)) {
    std::ifstream in(file);
    for (std::string text; std::getline(in, text) && !in.eof();) {  // a last line without its end is half
      const auto j = nlohmann::json::parse(text, nullptr, false);
      if (!j.is_object() || !j.contains("step") || !j["step"].is_number_integer() ||
          j["step"].get<int64_t>() > last_step)
        continue;
      kept += text + "\n";
      if (j["step"].get<int64_t>() == last_step && j.contains("validation_loss"))
        loss_at_last_step_ = j["validation_loss"].get<double>();
    }
  }
  write_text(file, kept);
}

LossesOfStep losses_of_step(const fs::path& file, int64_t step) {
  LossesOfStep losses;
  std::ifstream in(file);
  for (std::string text; std::getline(in, text);) {
    const auto j = nlohmann::json::parse(text, nullptr, false);
    if (!j.is_object() || j.value("step", nlohmann::json()) != step) continue;
    if (j.contains("loss") && j["loss"].is_number()) losses.training = j["loss"].get<double>();
    if (j.contains("validation_loss") && j["validation_loss"].is_number())
      losses.validation = j["validation_loss"].get<double>();
  }
  return losses;
}

void MetricsFile::line(const std::string& text) {
  if (!out_) out_.emplace(path_, AppendFile::Begin::keep);
  out_->write(text + '\n');
}

void MetricsFile::add_events(const fs::path& directory) {
  events_.emplace(directory, last_step_ > 0 ? last_step_ + 1 : 0);  // a run that begins writes of step 0, too
}

void MetricsFile::step(const StepMetrics& m) {
  const double tokens_per_second = static_cast<double>(m.tokens) / m.step_seconds;
  nlohmann::ordered_json j{{"step", m.step},
                           {"loss", m.loss},
                           {"grad_norm", m.grad_norm},
                           {"learning_rate", m.learning_rate},
                           {"tokens", m.tokens},
                           {"trained_tokens", m.trained_tokens},
                           {"tokens_per_second", tokens_per_second},
                           {"step_seconds", m.step_seconds},
                           {"peak_bytes", m.peak_bytes}};
  if (m.planned_step_seconds > 0) j["planned_step_seconds"] = m.planned_step_seconds;
  line(j.dump());
  if (!events_) return;
  const EventFile::Scalar scalars[] = {{"loss", m.loss},
                                       {"grad_norm", m.grad_norm},
                                       {"learning_rate", m.learning_rate},
                                       {"tokens_per_second", tokens_per_second},
                                       {"peak_bytes", static_cast<double>(m.peak_bytes)}};
  events_->write(m.step, scalars);
}

void MetricsFile::validation(int64_t step, double loss, int64_t tokens) {
  line(nlohmann::ordered_json{{"step", step}, {"validation_loss", loss}, {"tokens", tokens}}.dump());
  const EventFile::Scalar scalar{"validation_loss", loss};
  if (events_) events_->write(step, {&scalar, 1});
}

Progress::Progress(int64_t every_steps)
    : terminal_(isatty(STDERR_FILENO) != 0 || std::getenv("DROVER_TERMINAL") != nullptr), every_(every_steps) {}

void Progress::step(const StepMetrics& m) {
  const auto now = std::chrono::steady_clock::now();
  if (first_step_ < 0) {
    first_step_ = m.step;
    start_ = now;
  }
  if (!terminal_ && m.step % every_ != 0 && m.step != m.total_steps) return;
  const double elapsed = std::chrono::duration<double>(now - start_).count();
  const double per_step = m.step > first_step_ ? elapsed / static_cast<double>(m.step - first_step_) : m.step_seconds;
  const int64_t eta = static_cast<int64_t>(per_step * static_cast<double>(m.total_steps - m.step));
  const std::string text =
      fmt::format("step {}/{}  loss {:.4f}  lr {:.2e}  grad {:.3f}  {:.0f} tok/s  {:.2f} GiB  ETA {}:{:02}", m.step,
                  m.total_steps, m.loss, m.learning_rate, m.grad_norm, static_cast<double>(m.tokens) / m.step_seconds,
                  static_cast<double>(m.peak_bytes) / (1 << 30), eta / 60, eta % 60);
  if (terminal_) {
    log::put("\r\033[K" + text);
    open_ = true;
  } else {
    log::put(text + '\n');
  }
}

void Progress::note(const std::string& text) {
  finish();
  log::put(text + '\n');
}

void Progress::finish() {
  if (open_) log::put("\n");
  open_ = false;
}

}  // namespace drover
