// drover watch: a run as it works, in the terminal.
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <termios.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <iostream>
#include <utility>

#include "launch/run_view.h"
#include "launch/verbs/verb.h"
#include "trainer/run/stop_signal.h"

namespace drover {

namespace {

constexpr int kLookMilliseconds = 1000;
constexpr int64_t kPlainColumns = 80, kPlainRows = 24;

struct Arguments {
  std::string run;
  bool once = false, json = false;
};

// Keys come one by one and are not shown, the page has a screen of its own, and all is as before at the end. Stop
// signals and a change of size come as a descriptor's news.
class Screen {
 public:
  Screen() {
    hold_stop_signals();
    sigset_t news;
    sigemptyset(&news);
    for (const int number : {SIGINT, SIGTERM, SIGHUP, SIGUSR1, SIGUSR2, SIGTSTP, SIGWINCH}) sigaddset(&news, number);
    pthread_sigmask(SIG_BLOCK, &news, nullptr);
    signals_ = signalfd(-1, &news, SFD_CLOEXEC | SFD_NONBLOCK);
    if (signals_ < 0) fail(Fault::io, "cannot wait for signals: {}", std::strerror(errno));
    tcgetattr(STDIN_FILENO, &before_);
    termios now = before_;
    now.c_lflag &= ~static_cast<tcflag_t>(ICANON | ECHO);
    tcsetattr(STDIN_FILENO, TCSANOW, &now);
    put("\033[?1049h\033[?25l");  // the other screen, no cursor
  }
  ~Screen() {
    put("\033[?25h\033[?1049l");
    tcsetattr(STDIN_FILENO, TCSANOW, &before_);
    close(signals_);
  }
  Screen(const Screen&) = delete;
  Screen& operator=(const Screen&) = delete;

  // {columns, rows}
  static std::pair<int64_t, int64_t> size() {
    winsize w{};
    if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &w) != 0 || w.ws_col == 0 || w.ws_row == 0) return {kPlainColumns, kPlainRows};
    return {w.ws_col, w.ws_row};
  }

  // Over the one before, which is erased as it is overwritten: nothing flickers.
  void show(const std::string& page) {
    std::string text = "\033[H";
    for (const char c : page) text += c == '\n' ? "\033[K\n" : std::string(1, c);
    put(text + "\033[J");
  }

  // A second, or until a key or a signal comes; true where the person leaves: q, Ctrl-C, Ctrl-D, a terminal that is
  // gone, a stop signal.
  bool leaves() {
    pollfd news[] = {{STDIN_FILENO, POLLIN, 0}, {signals_, POLLIN, 0}};
    if (poll(news, 2, kLookMilliseconds) <= 0) return false;
    signalfd_siginfo signal{};
    while (read(signals_, &signal, sizeof signal) == static_cast<ssize_t>(sizeof signal)) {
      if (signal.ssi_signo != SIGWINCH) return true;
    }
    if (news[0].revents == 0) return false;
    char key = 0;
    const bool gone = read(STDIN_FILENO, &key, 1) != 1;
    return gone || key == 'q' || key == 'Q' || key == '\x04';
  }

 private:
  static void put(const std::string& text) { std::cout << text << std::flush; }
  int signals_ = -1;
  termios before_{};
};

std::string page_of(RunReader& reader, const std::string& name, int64_t columns, int64_t rows) {
  try {
    return run_page(reader.look(), name, columns, rows);
  } catch (const std::exception& trouble) {
    return trouble_page(name, trouble.what(), columns, rows);
  }
}

Exit run(const Arguments& a) {
  RunReader reader(a.run);
  if (a.json || a.once || isatty(STDOUT_FILENO) != 1 || isatty(STDIN_FILENO) != 1) {
    const SeenRun& seen = reader.look();
    if (seen.life == RunLife::absent) fail(Fault::missing_input, "there is no run {}", a.run);
    const auto [columns, rows] = Screen::size();
    std::cout << (a.json ? run_json(seen, a.run).dump() : run_page(seen, a.run, columns, rows)) << '\n';
    return Exit::done;
  }
  reader.look();  // what is no run is said before the screen changes
  Screen screen;
  do {
    const auto [columns, rows] = Screen::size();
    const std::string page = page_of(reader, a.run, columns, std::max<int64_t>(rows - 1, 1));
    screen.show(page + "\nq: leave");
  } while (!screen.leaves());
  return Exit::done;
}

}  // namespace

Verb watch_verb(CLI::App& app) {
  const auto a = std::make_shared<Arguments>();
  CLI::App* options = app.add_subcommand("watch", "a run as it works: how far it is, its losses and its speed");
  options->add_option("run", a->run, "the run's directory (output.dir), which may not be there yet")->required();
  options->add_flag("--once", a->once, "print it once, as where stdout is no terminal");
  options->add_flag("--json", a->json, "print it once, as JSON");
  options->footer("example: drover watch runs/handbook        (q or Ctrl-C leaves; the run does not notice)");
  return {.options = options, .run = [a](const Process&) { return run(*a); }};
}

}  // namespace drover
