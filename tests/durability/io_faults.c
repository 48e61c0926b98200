/* Preloaded: the nth write, sync, rename, link, removal or creation of a file below a folder fails with an error. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

static char below[PATH_MAX];
static int left = 0, number = 0, passed = 0;

void io_faults_arm(const char *folder, int nth, int error) {
    strncpy(below, folder, sizeof below - 1);
    number = error;
    passed = 0;
    left = nth;
}

int io_faults_disarm(void) {
    left = 0;
    below[0] = 0;
    return passed;
}

static int due(const char *path) {
    if (!below[0] || !path || strncmp(path, below, strlen(below)) != 0) return 0;
    passed++;
    if (left > 0 && --left == 0) {
        errno = number;
        return 1;
    }
    return 0;
}

static int due_handle(int handle) {
    char link[64], path[PATH_MAX];
    if (!below[0]) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", handle);
    ssize_t size = readlink(link, path, sizeof path - 1);
    if (size < 0) return 0;
    path[size] = 0;
    return due(path);
}

#define REAL(result, name, ...)                                          \
    static result (*real)(__VA_ARGS__);                                  \
    if (!real) real = (result(*)(__VA_ARGS__))dlsym(RTLD_NEXT, #name)

ssize_t write(int handle, const void *data, size_t size) {
    REAL(ssize_t, write, int, const void *, size_t);
    return due_handle(handle) ? -1 : real(handle, data, size);
}
ssize_t writev(int handle, const struct iovec *parts, int count) {
    REAL(ssize_t, writev, int, const struct iovec *, int);
    return due_handle(handle) ? -1 : real(handle, parts, count);
}
ssize_t pwrite64(int handle, const void *data, size_t size, off64_t place) {
    REAL(ssize_t, pwrite64, int, const void *, size_t, off64_t);
    return due_handle(handle) ? -1 : real(handle, data, size, place);
}
int fsync(int handle) {
    REAL(int, fsync, int);
    return due_handle(handle) ? -1 : real(handle);
}
int rename(const char *from, const char *to) {
    REAL(int, rename, const char *, const char *);
    return due(to) ? -1 : real(from, to);
}
int link(const char *from, const char *to) {
    REAL(int, link, const char *, const char *);
    return due(to) ? -1 : real(from, to);
}
int linkat(int a, const char *from, int b, const char *to, int flags) {
    REAL(int, linkat, int, const char *, int, const char *, int);
    return due(to) ? -1 : real(a, from, b, to, flags);
}
int unlink(const char *path) {
    REAL(int, unlink, const char *);
    return due(path) ? -1 : real(path);
}
int mkdir(const char *path, mode_t mode) {
    REAL(int, mkdir, const char *, mode_t);
    return due(path) ? -1 : real(path, mode);
}
#define OPEN(name)                                                       \
    int name(const char *path, int flags, ...) {                         \
        REAL(int, name, const char *, int, ...);                         \
        va_list list;                                                    \
        va_start(list, flags);                                           \
        mode_t mode = va_arg(list, mode_t);                              \
        va_end(list);                                                    \
        return (flags & O_CREAT) && due(path) ? -1 : real(path, flags, mode); \
    }
OPEN(open)
OPEN(open64)
