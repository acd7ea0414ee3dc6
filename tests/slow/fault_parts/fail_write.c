/* LD_PRELOAD: counts the calls that write below FAULT_UNDER, and fails the FAULT_AT-th (0: none) with FAULT_ERRNO; with
   FAULT_FROM set, all from it on. Only in the process that FAULT_PROGRAM is the executable of, and of the rank
   FAULT_RANK. FAULT_LOG gets a line for every failed call, and "count N" at the end. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

static const char *under, *log_file;
static long at;
static int error_number, from_then_on, active;
static atomic_long count;

#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static void log_line(const char* text) {
  int fd = NEXT(open)(log_file, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
  if (fd < 0) return;
  (void)!NEXT(write)(fd, text, strlen(text));
  close(fd);
}

__attribute__((constructor)) static void begin(void) {
  char program[PATH_MAX] = "";
  const char *wanted = getenv("FAULT_PROGRAM"), *rank = getenv("FAULT_RANK"), *mine = getenv("OMPI_COMM_WORLD_RANK");
  under = getenv("FAULT_UNDER");
  log_file = getenv("FAULT_LOG");
  if (!under || !log_file || !wanted || readlink("/proc/self/exe", program, sizeof program - 1) < 0) return;
  if (strcmp(program, wanted) != 0 || (rank && mine && strcmp(rank, mine) != 0)) return;
  at = atol(getenv("FAULT_AT"));
  error_number = atoi(getenv("FAULT_ERRNO"));
  from_then_on = getenv("FAULT_FROM") != NULL;
  active = 1;
}

__attribute__((destructor)) static void end(void) {
  char text[64];
  if (!active) return;
  snprintf(text, sizeof text, "count %ld\n", (long)count);
  log_line(text);
}

/* Whether this call fails; `path` may be relative to the directory that `fd` is open at. */
static int fails(const char* call, int fd, const char* path) {
  char whole[2 * PATH_MAX + 2] = "", link[64], text[3 * PATH_MAX];
  if (!active) return 0;
  if (path && path[0] == '/') {
    snprintf(whole, sizeof whole, "%s", path);
  } else if (fd >= 0) {
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t size = readlink(link, whole, PATH_MAX);
    if (size < 0) return 0;
    whole[size] = 0;
    if (path) strncat(strcat(whole, "/"), path, PATH_MAX);
  } else {
    return 0; /* relative to where the program runs, which is elsewhere */
  }
  if (strncmp(whole, under, strlen(under)) != 0) return 0;
  long number = ++count;
  if (at == 0 || (from_then_on ? number < at : number != at)) return 0;
  snprintf(text, sizeof text, "%s %s\n", call, whole);
  log_line(text);
  errno = error_number;
  return 1;
}

static int writes(int flags) { return (flags & (O_WRONLY | O_RDWR | O_CREAT | O_TRUNC)) != 0; }

#define OPEN(name)                                                     \
  int name(const char* path, int flags, ...) {                         \
    mode_t mode = 0;                                                   \
    va_list rest;                                                      \
    va_start(rest, flags);                                             \
    if (flags & (O_CREAT | O_TMPFILE)) mode = va_arg(rest, mode_t);    \
    va_end(rest);                                                      \
    if (writes(flags) && fails("open", -1, path)) return -1;           \
    return NEXT(name)(path, flags, mode);                              \
  }
OPEN(open)
OPEN(open64)

#define OPENAT(name)                                                   \
  int name(int fd, const char* path, int flags, ...) {                 \
    mode_t mode = 0;                                                   \
    va_list rest;                                                      \
    va_start(rest, flags);                                             \
    if (flags & (O_CREAT | O_TMPFILE)) mode = va_arg(rest, mode_t);    \
    va_end(rest);                                                      \
    if (writes(flags) && fails("open", fd, path)) return -1;           \
    return NEXT(name)(fd, path, flags, mode);                          \
  }
OPENAT(openat)
OPENAT(openat64)

#define FOPEN(name)                                                                        \
  FILE* name(const char* path, const char* mode) {                                         \
    if (strpbrk(mode, "wa+") && fails("open", -1, path)) return NULL;                      \
    return NEXT(name)(path, mode);                                                         \
  }
FOPEN(fopen)
FOPEN(fopen64)

#define ON_DESCRIPTOR(type, name, parameters, arguments) \
  type name parameters {                                 \
    if (fails(#name, fd, NULL)) return -1;               \
    return NEXT(name) arguments;                         \
  }
ON_DESCRIPTOR(ssize_t, write, (int fd, const void* data, size_t size), (fd, data, size))
ON_DESCRIPTOR(ssize_t, writev, (int fd, const struct iovec* parts, int number), (fd, parts, number))
ON_DESCRIPTOR(ssize_t, pwrite, (int fd, const void* data, size_t size, off_t offset), (fd, data, size, offset))
ON_DESCRIPTOR(ssize_t, pwrite64, (int fd, const void* data, size_t size, off64_t offset), (fd, data, size, offset))
ON_DESCRIPTOR(int, fsync, (int fd), (fd))
ON_DESCRIPTOR(int, fdatasync, (int fd), (fd))
ON_DESCRIPTOR(int, ftruncate, (int fd, off_t size), (fd, size))
ON_DESCRIPTOR(int, ftruncate64, (int fd, off64_t size), (fd, size))
ON_DESCRIPTOR(int, fallocate, (int fd, int mode, off_t offset, off_t size), (fd, mode, offset, size))
ON_DESCRIPTOR(int, posix_fallocate, (int fd, off_t offset, off_t size), (fd, offset, size))

#define ON_PATH(name, parameters, directory, path, arguments) \
  int name parameters {                                       \
    if (fails(#name, directory, path)) return -1;             \
    return NEXT(name) arguments;                              \
  }
ON_PATH(mkdir, (const char* path, mode_t mode), -1, path, (path, mode))
ON_PATH(mkdirat, (int fd, const char* path, mode_t mode), fd, path, (fd, path, mode))
ON_PATH(rename, (const char* from, const char* to), -1, to, (from, to))
ON_PATH(renameat, (int a, const char* from, int b, const char* to), b, to, (a, from, b, to))
ON_PATH(renameat2, (int a, const char* from, int b, const char* to, unsigned flags), b, to, (a, from, b, to, flags))
ON_PATH(truncate, (const char* path, off_t size), -1, path, (path, size))
ON_PATH(symlink, (const char* to, const char* path), -1, path, (to, path))
ON_PATH(link, (const char* to, const char* path), -1, path, (to, path))
/* Nothing is removed from a read-only disk; a full one gives up its files. */
#define REMOVES(name, parameters, directory, arguments)                                   \
  int name parameters {                                                                   \
    if (error_number != ENOSPC && fails(#name, directory, path)) return -1;               \
    return NEXT(name) arguments;                                                          \
  }
REMOVES(unlink, (const char* path), -1, (path))
REMOVES(rmdir, (const char* path), -1, (path))
REMOVES(remove, (const char* path), -1, (path))
REMOVES(unlinkat, (int fd, const char* path, int flags), fd, (fd, path, flags))
