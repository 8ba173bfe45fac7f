/* A library to preload: a process kills itself at its n-th change of a file whose path matches a pattern.
 *
 * Which call counts, and all settings: kill_at_write.py, which compiles this file. Settings come from the environment:
 *   KILL_PATTERN  fnmatch(3) patterns of absolute paths, separated by ':'; * also matches '/'
 *   KILL_AT       the call at which to kill, counted from 1; 0 or unset: only count
 *   KILL_WHEN     before, within or after that call; within writes the first half of the bytes
 *   KILL_CALLS    names of the calls that count, separated by ','; unset: all
 *   KILL_WHOM     self (default), or first: the first process that loaded the library, and this one
 *   KILL_COUNTER  a file of 8 bytes with the count, shared by all processes; unset: each process counts for itself
 *   KILL_LOG      a file that gets a line for each counted call: number, process, call, bytes, path
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

#define REAL(name) ((__typeof__(&name))next(#name))
enum when { BEFORE, WITHIN, AFTER };

static char patterns[4096], calls[512], log_path[PATH_MAX];
static long kill_at;
static enum when kill_when;
static pid_t first;
static unsigned long own_count, *count = &own_count;

static void *next(const char *name) {
    void *found = dlsym(RTLD_NEXT, name);
    if (!found) abort();
    return found;
}

static void copy_setting(const char *name, char *into, size_t room) {
    const char *value = getenv(name);
    snprintf(into, room, "%s", value ? value : "");
}

__attribute__((constructor)) static void read_settings(void) {
    copy_setting("KILL_PATTERN", patterns, sizeof patterns);
    copy_setting("KILL_CALLS", calls, sizeof calls);
    copy_setting("KILL_LOG", log_path, sizeof log_path);
    const char *at = getenv("KILL_AT"), *when = getenv("KILL_WHEN"), *whom = getenv("KILL_WHOM");
    const char *counter = getenv("KILL_COUNTER");
    kill_at = at ? atol(at) : 0;
    kill_when = when && !strcmp(when, "within") ? WITHIN : when && !strcmp(when, "after") ? AFTER : BEFORE;
    if (whom && !strcmp(whom, "first")) {
        char own[32];
        snprintf(own, sizeof own, "%d", (int)getpid());
        setenv("KILL_FIRST", own, 0); /* what this process starts inherits it */
        first = (pid_t)atol(getenv("KILL_FIRST"));
    }
    if (counter && *counter) {
        int fd = (int)syscall(SYS_openat, AT_FDCWD, counter, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
        if (fd >= 0 && !syscall(SYS_ftruncate, fd, sizeof *count)) {
            void *shared = mmap(NULL, sizeof *count, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
            if (shared != MAP_FAILED) count = shared;
        }
        if (fd >= 0) syscall(SYS_close, fd);
    }
}

static int path_matches(const char *path) {
    char copy[sizeof patterns], *rest = copy;
    memcpy(copy, patterns, sizeof copy);
    for (char *each; (each = strsep(&rest, ":"));)
        if (*each && !fnmatch(each, path, 0)) return 1;
    return 0;
}

static int call_counts(const char *call) {
    char copy[sizeof calls], *rest = copy;
    if (!*calls) return 1;
    memcpy(copy, calls, sizeof copy);
    for (char *each; (each = strsep(&rest, ","));)
        if (!strcmp(each, call)) return 1;
    return 0;
}

static int path_of_descriptor(int fd, char *path) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, PATH_MAX - 1);
    if (length <= 0 || *path != '/') return 0;
    path[length] = 0;
    return 1;
}

static int path_of_name(int folder, const char *name, char *path) {
    char base[PATH_MAX];
    if (*name == '/') return snprintf(path, PATH_MAX, "%s", name) < PATH_MAX;
    if (folder == AT_FDCWD ? !getcwd(base, sizeof base) : !path_of_descriptor(folder, base)) return 0;
    return snprintf(path, PATH_MAX, "%s/%s", base, name) < PATH_MAX;
}

static void end(void) {
    if (first > 0 && first != getpid()) syscall(SYS_kill, first, SIGKILL);
    syscall(SYS_kill, getpid(), SIGKILL);
    for (;;) pause();
}

/* Whether this call is the one to be killed at. */
static int is_the_one(const char *call, size_t bytes, const char *path) {
    if (!*patterns || !path_matches(path) || !call_counts(call)) return 0;
    unsigned long number = __atomic_add_fetch(count, 1, __ATOMIC_SEQ_CST);
    if (*log_path) {
        char line[PATH_MAX + 128];
        int length = snprintf(line, sizeof line, "%lu %d %s %zu %s\n", number, (int)getpid(), call, bytes, path);
        int fd = (int)syscall(SYS_openat, AT_FDCWD, log_path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
        if (fd >= 0) {
            syscall(SYS_write, fd, line, (size_t)length);
            syscall(SYS_close, fd);
        }
    }
    return kill_at > 0 && number == (unsigned long)kill_at;
}

static int descriptor_is_the_one(const char *call, size_t bytes, int fd) {
    char path[PATH_MAX];
    int before = errno, found = path_of_descriptor(fd, path) && is_the_one(call, bytes, path);
    errno = before;
    return found;
}

static int name_is_the_one(const char *call, int folder, const char *name) {
    char path[PATH_MAX];
    int before = errno, found = path_of_name(folder, name, path) && is_the_one(call, 0, path);
    errno = before;
    return found;
}

/* Either path of a renaming may match; it is counted once. */
static int rename_is_the_one(int from_folder, const char *from, int to_folder, const char *to) {
    char path[PATH_MAX];
    int before = errno, found = 0;
    if (path_of_name(to_folder, to, path) && *patterns && path_matches(path)) found = is_the_one("rename", 0, path);
    else if (path_of_name(from_folder, from, path)) found = is_the_one("rename", 0, path);
    errno = before;
    return found;
}

/* `half` is what within means; calls that cannot be halved are killed before. */
#define CALL(type, one, real, half)                                                                                    \
    do {                                                                                                               \
        if (!(one)) return real;                                                                                       \
        if (kill_when == WITHIN) half;                                                                                 \
        if (kill_when == AFTER) {                                                                                      \
            type result = real;                                                                                        \
            (void)result;                                                                                              \
        }                                                                                                              \
        end();                                                                                                         \
        return -1;                                                                                                     \
    } while (0)

ssize_t write(int fd, const void *data, size_t size) {
    CALL(ssize_t, descriptor_is_the_one("write", size, fd), REAL(write)(fd, data, size),
         (void)!REAL(write)(fd, data, size / 2));
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t at) {
    CALL(ssize_t, descriptor_is_the_one("pwrite", size, fd), REAL(pwrite)(fd, data, size, at),
         (void)!REAL(pwrite)(fd, data, size / 2, at));
}

ssize_t pwrite64(int fd, const void *data, size_t size, off64_t at) {
    CALL(ssize_t, descriptor_is_the_one("pwrite", size, fd), REAL(pwrite64)(fd, data, size, at),
         (void)!REAL(pwrite64)(fd, data, size / 2, at));
}

static size_t length_of(const struct iovec *parts, int number) {
    size_t length = 0;
    for (int i = 0; i < number; i++) length += parts[i].iov_len;
    return length;
}

/* Half of the bytes of several parts, one write each; at < 0: at the place of the descriptor. */
static void write_half(int fd, const struct iovec *parts, int number, off64_t at) {
    size_t left = length_of(parts, number) / 2;
    for (int i = 0; i < number && left; i++) {
        size_t size = parts[i].iov_len < left ? parts[i].iov_len : left;
        if (at < 0) (void)!REAL(write)(fd, parts[i].iov_base, size);
        else (void)!REAL(pwrite64)(fd, parts[i].iov_base, size, at), at += (off64_t)size;
        left -= size;
    }
}

ssize_t writev(int fd, const struct iovec *parts, int number) {
    CALL(ssize_t, descriptor_is_the_one("writev", length_of(parts, number), fd), REAL(writev)(fd, parts, number),
         write_half(fd, parts, number, -1));
}

ssize_t pwritev(int fd, const struct iovec *parts, int number, off_t at) {
    CALL(ssize_t, descriptor_is_the_one("pwritev", length_of(parts, number), fd), REAL(pwritev)(fd, parts, number, at),
         write_half(fd, parts, number, at));
}

ssize_t pwritev64(int fd, const struct iovec *parts, int number, off64_t at) {
    CALL(ssize_t, descriptor_is_the_one("pwritev", length_of(parts, number), fd),
         REAL(pwritev64)(fd, parts, number, at), write_half(fd, parts, number, at));
}

/* Half of what a copy will move: callers ask for more than there is. */
static size_t half_of_file(int from, size_t asked) {
    struct stat status;
    size_t there = fstat(from, &status) ? asked : (size_t)status.st_size;
    return (asked < there ? asked : there) / 2;
}

ssize_t sendfile(int to, int from, off_t *at, size_t size) {
    CALL(ssize_t, descriptor_is_the_one("sendfile", size, to), REAL(sendfile)(to, from, at, size),
         (void)!REAL(sendfile)(to, from, at, half_of_file(from, size)));
}

ssize_t sendfile64(int to, int from, off64_t *at, size_t size) {
    CALL(ssize_t, descriptor_is_the_one("sendfile", size, to), REAL(sendfile64)(to, from, at, size),
         (void)!REAL(sendfile64)(to, from, at, half_of_file(from, size)));
}

ssize_t copy_file_range(int from, off64_t *from_at, int to, off64_t *to_at, size_t size, unsigned flags) {
    CALL(ssize_t, descriptor_is_the_one("copy_file_range", size, to),
         REAL(copy_file_range)(from, from_at, to, to_at, size, flags),
         (void)!REAL(copy_file_range)(from, from_at, to, to_at, half_of_file(from, size), flags));
}

int ftruncate(int fd, off_t size) {
    CALL(int, descriptor_is_the_one("ftruncate", 0, fd), REAL(ftruncate)(fd, size), (void)0);
}

int ftruncate64(int fd, off64_t size) {
    CALL(int, descriptor_is_the_one("ftruncate", 0, fd), REAL(ftruncate64)(fd, size), (void)0);
}

int fsync(int fd) { CALL(int, descriptor_is_the_one("fsync", 0, fd), REAL(fsync)(fd), (void)0); }

int fdatasync(int fd) { CALL(int, descriptor_is_the_one("fsync", 0, fd), REAL(fdatasync)(fd), (void)0); }

int unlink(const char *name) {
    CALL(int, name_is_the_one("unlink", AT_FDCWD, name), REAL(unlink)(name), (void)0);
}

int unlinkat(int folder, const char *name, int flags) {
    CALL(int, name_is_the_one("unlink", folder, name), REAL(unlinkat)(folder, name, flags), (void)0);
}

int rename(const char *from, const char *to) {
    CALL(int, rename_is_the_one(AT_FDCWD, from, AT_FDCWD, to), REAL(rename)(from, to), (void)0);
}

int renameat(int from_folder, const char *from, int to_folder, const char *to) {
    CALL(int, rename_is_the_one(from_folder, from, to_folder, to), REAL(renameat)(from_folder, from, to_folder, to),
         (void)0);
}

/* What is created counts by its name: a kill after it leaves an empty file. */
static int open_is_the_one(int folder, const char *name, int flags) {
    return (flags & O_CREAT) && !(flags & O_TMPFILE & ~O_DIRECTORY) && syscall(SYS_faccessat, folder, name, F_OK) &&
           name_is_the_one("create", folder, name);
}

static mode_t mode_of(int flags, va_list rest) {
    return flags & (O_CREAT | O_TMPFILE) ? (mode_t)va_arg(rest, unsigned) : 0;
}

#define OPEN(function)                                                                                                 \
    int function(const char *name, int flags, ...) {                                                                   \
        va_list rest;                                                                                                  \
        va_start(rest, flags);                                                                                         \
        mode_t mode = mode_of(flags, rest);                                                                            \
        va_end(rest);                                                                                                  \
        int before = errno, one = *patterns && open_is_the_one(AT_FDCWD, name, flags);                                 \
        errno = before;                                                                                                \
        CALL(int, one, REAL(function)(name, flags, mode), (void)0);                                                    \
    }
OPEN(open)
OPEN(open64)

#define OPENAT(function)                                                                                               \
    int function(int folder, const char *name, int flags, ...) {                                                       \
        va_list rest;                                                                                                  \
        va_start(rest, flags);                                                                                         \
        mode_t mode = mode_of(flags, rest);                                                                            \
        va_end(rest);                                                                                                  \
        int before = errno, one = *patterns && open_is_the_one(folder, name, flags);                                   \
        errno = before;                                                                                                \
        CALL(int, one, REAL(function)(folder, name, flags, mode), (void)0);                                            \
    }
OPENAT(openat)
OPENAT(openat64)
