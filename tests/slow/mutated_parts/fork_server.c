/* LD_PRELOAD: the program's main is called again and again, each time in a child of its own: an input costs a fork and
   not the loading of forty libraries. Descriptor 198 gives a length (uint32) and as many bytes of arguments, each ended
   by NUL, of which the first is the file for the output; descriptor 199 gets the child's wait status and whether it was
   killed for waiting (two int32). A child may compute for SERVER_SECONDS, and take twelve times as long. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

enum { kRequests = 198, kAnswers = 199, kMostArguments = 64, kPatience = 12 };

typedef int (*Main)(int, char**, char**);
typedef int (*Start)(Main, int, char**, void (*)(void), void (*)(void), void (*)(void), void*);

static Main program;
static volatile pid_t child;
static volatile int late;

static void on_alarm(int number) {
  (void)number;
  late = 1;
  kill(child, SIGKILL);
}

static int take(void* to, size_t size) {
  for (size_t done = 0; done < size;) {
    const ssize_t got = read(kRequests, (char*)to + done, size - done);
    if (got <= 0) return 0;
    done += (size_t)got;
  }
  return 1;
}

static int run_child(char* bytes, uint32_t size, char** environment) {
  char *arguments[kMostArguments + 1] = {(char*)"drover"}, *output = bytes;
  int count = 1;
  const rlim_t seconds = (rlim_t)atoi(getenv("SERVER_SECONDS"));
  const struct rlimit memory = {(rlim_t)4 << 30, (rlim_t)4 << 30}, time = {seconds, seconds};
  for (char* at = bytes + strlen(bytes) + 1; at < bytes + size && count < kMostArguments; at += strlen(at) + 1)
    arguments[count++] = at;
  const int out = open(output, O_WRONLY | O_CREAT | O_TRUNC, 0666);
  dup2(out, 1);
  dup2(out, 2);
  close(kRequests);
  close(kAnswers);
  signal(SIGALRM, SIG_DFL);
  setrlimit(RLIMIT_AS, &memory);
  setrlimit(RLIMIT_CPU, &time);
  return program(count, arguments, environment);
}

static int serve(int argc, char** argv, char** environment) {
  static char bytes[1 << 16];
  uint32_t size = 0;
  struct sigaction action = {.sa_handler = on_alarm};
  (void)argc;
  (void)argv;
  sigaction(SIGALRM, &action, NULL);
  while (take(&size, sizeof size) && size < sizeof bytes && take(bytes, size)) {
    int32_t answer[2] = {0, 0};
    late = 0;
    child = fork();
    if (child == 0) exit(run_child(bytes, size, environment));
    alarm(kPatience * (unsigned)atoi(getenv("SERVER_SECONDS")));
    while (waitpid(child, &answer[0], 0) < 0 && errno == EINTR) {
    }
    alarm(0);
    answer[1] = late;
    if (write(kAnswers, answer, sizeof answer) != sizeof answer) break;
  }
  return 0;
}

int __libc_start_main(Main main, int argc, char** argv, void (*init)(void), void (*fini)(void), void (*end)(void),
                      void* stack) {
  const Start start = (Start)dlsym(RTLD_NEXT, "__libc_start_main");
  program = main;
  return start(serve, argc, argv, init, fini, end, stack);
}
