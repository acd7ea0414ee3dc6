/* LD_PRELOAD: the wall clock jumps every CLOCK_EVERY_MS: an hour ahead, then a day back of that, and so on. The
   monotonic clock is the machine's. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>

static const long kAhead = 3600, kBack = 86400;

static int next_clock(clockid_t id, struct timespec* now) {
  static int (*next)(clockid_t, struct timespec*);
  if (!next) next = (int (*)(clockid_t, struct timespec*))dlsym(RTLD_NEXT, "clock_gettime");
  return next(id, now);
}

static long offset_seconds(void) {
  static long every = 0;
  struct timespec now;
  const char* text = every ? NULL : getenv("CLOCK_EVERY_MS");
  if (!every) every = text ? atol(text) : 100;
  next_clock(CLOCK_MONOTONIC, &now);
  const long jumps = (now.tv_sec * 1000 + now.tv_nsec / 1000000) / every;
  return (jumps & 1) ? kAhead : kAhead - kBack;
}

int clock_gettime(clockid_t id, struct timespec* now) {
  const int result = next_clock(id, now);
  if (result == 0 && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE)) now->tv_sec += offset_seconds();
  return result;
}

int gettimeofday(struct timeval* restrict now, void* restrict zone) {
  struct timespec exact;
  (void)zone;
  clock_gettime(CLOCK_REALTIME, &exact);
  now->tv_sec = exact.tv_sec;
  now->tv_usec = exact.tv_nsec / 1000;
  return 0;
}

time_t time(time_t* out) {
  struct timespec exact;
  clock_gettime(CLOCK_REALTIME, &exact);
  if (out) *out = exact.tv_sec;
  return exact.tv_sec;
}
