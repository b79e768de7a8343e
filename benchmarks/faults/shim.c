/* Counts the calls of a process and of its children that touch files below some folders, and lets the N-th one fail.

   Loaded by LD_PRELOAD, so that calls of Python and of C, C++ and Rust libraries are all seen. $FAULTS_STATE names a
   file of `struct state`, which all processes share and benchmarks/faults/shim.py reads and sets; $FAULTS_UNDER has the
   folders, absolute, between colons. Python modules do not count, which are read
   whenever one is imported, and neither does what git reads to say which commit this is. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

enum { READ, OPEN, WRITE, FSYNC, RENAME, KINDS, FULL = KINDS }; /* FULL: all but READ, from the N-th on */

struct state {
    int kind, error;        /* which is to fail, with which number; kind -1: none */
    long n;                 /* from 1 */
    long counts[KINDS + 1]; /* the last: all but READ */
    long hits;
    char where[512]; /* the first that failed */
};

static struct state *state;
static const char *folders;

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("FAULTS_STATE");
    folders = getenv("FAULTS_UNDER");
    int (*really)(const char *, int, ...) = dlsym(RTLD_NEXT, "open");
    int fd = path && folders ? really(path, O_RDWR) : -1;
    if (fd < 0 || !strcmp(program_invocation_short_name, "git")) return;
    void *found = mmap(NULL, sizeof *state, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (found != MAP_FAILED) state = found;
    close(fd);
}

static int ours(const char *path) {
    size_t whole = strlen(path);
    if (strstr(path, ".pyc") || (whole > 3 && !strcmp(path + whole - 3, ".py"))) return 0;
    for (const char *start = folders; *start;) {
        size_t length = strcspn(start, ":");
        if (strncmp(path, start, length) == 0 && (path[length] == '/' || !path[length])) return 1;
        start += length + (start[length] == ':');
    }
    return 0;
}

/* Whether this call is to fail, with errno set. */
static int fails(int kind, const char *path) {
    long n = __atomic_add_fetch(&state->counts[kind], 1, __ATOMIC_SEQ_CST);
    long all = kind == READ ? 0 : __atomic_add_fetch(&state->counts[KINDS], 1, __ATOMIC_SEQ_CST);
    int hit = state->kind == FULL ? all >= state->n : state->kind == kind && n == state->n;
    if (!hit) return 0;
    if (__atomic_add_fetch(&state->hits, 1, __ATOMIC_SEQ_CST) == 1)
        strncpy(state->where, path, sizeof state->where - 1);
    errno = state->error;
    return 1;
}

static int at_path(int kind, int folder, const char *path) {
    char whole[4096];
    if (!state || !path || (path[0] != '/' && folder != AT_FDCWD)) return 0;
    if (path[0] != '/') {
        if (!getcwd(whole, sizeof whole)) return 0;
        strncat(whole, "/", sizeof whole - strlen(whole) - 1);
        strncat(whole, path, sizeof whole - strlen(whole) - 1);
        path = whole;
    }
    return ours(path) && fails(kind, path);
}

static int at_file(int kind, int fd) {
    char link[64], path[4096];
    if (!state) return 0;
    int before = errno;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    errno = before;
    if (length <= 0) return 0;
    path[length] = 0;
    return ours(path) && fails(kind, path);
}

#define REAL(type, name, ...)                                   \
    static type (*real)(__VA_ARGS__);                           \
    if (!real) real = (type(*)(__VA_ARGS__))dlsym(RTLD_NEXT, #name)

#define OPENING(flags) ((flags) & (O_WRONLY | O_RDWR | O_CREAT) ? OPEN : READ)

#define DEFINE_OPEN(name)                                              \
    int name(const char *path, int flags, ...) {                       \
        REAL(int, name, const char *, int, ...);                       \
        va_list rest;                                                  \
        va_start(rest, flags);                                         \
        mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0; \
        va_end(rest);                                                  \
        return at_path(OPENING(flags), AT_FDCWD, path) ? -1 : real(path, flags, mode); \
    }
DEFINE_OPEN(open)
DEFINE_OPEN(open64)

#define DEFINE_OPENAT(name)                                            \
    int name(int folder, const char *path, int flags, ...) {           \
        REAL(int, name, int, const char *, int, ...);                  \
        va_list rest;                                                  \
        va_start(rest, flags);                                         \
        mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0; \
        va_end(rest);                                                  \
        return at_path(OPENING(flags), folder, path) ? -1 : real(folder, path, flags, mode); \
    }
DEFINE_OPENAT(openat)
DEFINE_OPENAT(openat64)

#define DEFINE_OPEN_2(name)                                            \
    int name(const char *path, int flags) {                            \
        REAL(int, name, const char *, int);                            \
        return at_path(OPENING(flags), AT_FDCWD, path) ? -1 : real(path, flags); \
    }
DEFINE_OPEN_2(__open_2)
DEFINE_OPEN_2(__open64_2)

#define DEFINE_FOPEN(name)                                             \
    FILE *name(const char *path, const char *mode) {                   \
        REAL(FILE *, name, const char *, const char *);                \
        int kind = strpbrk(mode, "wa+") ? OPEN : READ;                 \
        return at_path(kind, AT_FDCWD, path) ? NULL : real(path, mode); \
    }
DEFINE_FOPEN(fopen)
DEFINE_FOPEN(fopen64)

int mkdir(const char *path, mode_t mode) {
    REAL(int, mkdir, const char *, mode_t);
    return at_path(OPEN, AT_FDCWD, path) ? -1 : real(path, mode);
}

/* A write that fails leaves half of its bytes, as one does that meets the end of a disk. */
ssize_t write(int fd, const void *bytes, size_t n) {
    REAL(ssize_t, write, int, const void *, size_t);
    if (!at_file(WRITE, fd)) return real(fd, bytes, n);
    int error = errno;
    ssize_t written = real(fd, bytes, n / 2);
    return errno = error, written < 0 ? written : -1;
}

#define DEFINE_PWRITE(name, offset_type)                               \
    ssize_t name(int fd, const void *bytes, size_t n, offset_type at) { \
        REAL(ssize_t, name, int, const void *, size_t, offset_type);   \
        if (!at_file(WRITE, fd)) return real(fd, bytes, n, at);        \
        int error = errno;                                             \
        ssize_t written = real(fd, bytes, n / 2, at);                  \
        return errno = error, written < 0 ? written : -1;              \
    }
DEFINE_PWRITE(pwrite, off_t)
DEFINE_PWRITE(pwrite64, off64_t)

ssize_t writev(int fd, const struct iovec *parts, int n) {
    REAL(ssize_t, writev, int, const struct iovec *, int);
    return at_file(WRITE, fd) ? -1 : real(fd, parts, n);
}

size_t fwrite(const void *bytes, size_t size, size_t n, FILE *file) {
    REAL(size_t, fwrite, const void *, size_t, size_t, FILE *);
    return at_file(WRITE, fileno(file)) ? 0 : real(bytes, size, n, file);
}

#define DEFINE_SENDFILE(name, offset_type)                             \
    ssize_t name(int out, int in, offset_type *at, size_t n) {         \
        REAL(ssize_t, name, int, int, offset_type *, size_t);          \
        return at_file(WRITE, out) ? -1 : real(out, in, at, n);        \
    }
DEFINE_SENDFILE(sendfile, off_t)
DEFINE_SENDFILE(sendfile64, off64_t)

ssize_t copy_file_range(int in, off64_t *from, int out, off64_t *to, size_t n, unsigned flags) {
    REAL(ssize_t, copy_file_range, int, off64_t *, int, off64_t *, size_t, unsigned);
    return at_file(WRITE, out) ? -1 : real(in, from, out, to, n, flags);
}

#define DEFINE_TRUNCATE(name, offset_type)                             \
    int name(int fd, offset_type n) {                                  \
        REAL(int, name, int, offset_type);                             \
        return at_file(WRITE, fd) ? -1 : real(fd, n);                  \
    }
DEFINE_TRUNCATE(ftruncate, off_t)
DEFINE_TRUNCATE(ftruncate64, off64_t)

#define DEFINE_FALLOCATE(name, offset_type)                            \
    int name(int fd, offset_type at, offset_type n) {                  \
        REAL(int, name, int, offset_type, offset_type);                \
        return at_file(WRITE, fd) ? errno : real(fd, at, n);           \
    }
DEFINE_FALLOCATE(posix_fallocate, off_t)
DEFINE_FALLOCATE(posix_fallocate64, off64_t)

int fsync(int fd) {
    REAL(int, fsync, int);
    return at_file(FSYNC, fd) ? -1 : real(fd);
}

int fdatasync(int fd) {
    REAL(int, fdatasync, int);
    return at_file(FSYNC, fd) ? -1 : real(fd);
}

int rename(const char *source, const char *target) {
    REAL(int, rename, const char *, const char *);
    return at_path(RENAME, AT_FDCWD, target) ? -1 : real(source, target);
}

int renameat(int one, const char *source, int other, const char *target) {
    REAL(int, renameat, int, const char *, int, const char *);
    return at_path(RENAME, other, target) ? -1 : real(one, source, other, target);
}

int renameat2(int one, const char *source, int other, const char *target, unsigned flags) {
    REAL(int, renameat2, int, const char *, int, const char *, unsigned);
    return at_path(RENAME, other, target) ? -1 : real(one, source, other, target, flags);
}

int link(const char *source, const char *target) {
    REAL(int, link, const char *, const char *);
    return at_path(RENAME, AT_FDCWD, target) ? -1 : real(source, target);
}

int linkat(int one, const char *source, int other, const char *target, int flags) {
    REAL(int, linkat, int, const char *, int, const char *, int);
    return at_path(RENAME, other, target) ? -1 : real(one, source, other, target, flags);
}
