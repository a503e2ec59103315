/* Records what a program does to the files below one directory, and makes it fail on purpose.
 *
 * Loaded with LD_PRELOAD. Each call that changes a file, syncs one, or changes a directory is
 * appended to a log, in the order in which the calls took effect, with bytes and result; record.py
 * reads it. Nothing is recorded before shim_start, so that a server can be forked again and again.
 *
 * A plan makes the n-th call that it is about fail: with an error, short, or by SIGKILL.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

enum kind {
    K_WRITE = 1, K_RESIZE, K_ALLOCATE, K_RESERVE, K_PUNCH, K_SYNC,
    K_CREATE, K_MKDIR, K_UNLINK, K_RMDIR, K_RENAME, K_MARK, K_SHARED_MAP, K_UNKNOWN
};

/* As record.py unpacks it: "<IBBHiQQQQ". Then the path, then the data. */
struct header {
    uint32_t magic;
    uint8_t kind, dsync;
    uint16_t path_size;
    int32_t error;
    uint64_t inode, offset, size, data_size;
} __attribute__((packed));

enum fault { F_NONE, F_ERROR, F_SHORT, F_SYNC, F_KILL_BEFORE, F_KILL_AFTER };

static char top[PATH_MAX], log_path[PATH_MAX], marks_path[PATH_MAX + 8];
static size_t top_size;
static int log_fd = -1;
static pid_t log_pid;
static int fault, fault_errno, fault_forever;
static long fault_at, counted;
static char swallowed[64]; /* base name of the file whose syncs do nothing; "/": directories */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

#define REAL(result, name, ...)                                                  \
    static result (*real)(__VA_ARGS__);                                          \
    if (!real) *(void **)&real = dlsym(RTLD_NEXT, name)

void shim_start(const char *directory, const char *log)
{
    snprintf(top, sizeof top, "%s", directory);
    snprintf(log_path, sizeof log_path, "%s", log);
    snprintf(marks_path, sizeof marks_path, "%s.marks", log);
    top_size = strlen(top);
    log_fd = -1;
    counted = 0;
}

void shim_stop(void) { top_size = 0; }

void shim_plan(int kind, int error, long at, int forever)
{
    fault = kind, fault_errno = error, fault_at = at, fault_forever = forever, counted = 0;
}

void shim_calm(void) { fault = F_NONE; }

long shim_counted(void) { return counted; }

void shim_swallow(const char *name) { snprintf(swallowed, sizeof swallowed, "%s", name); }

static int below(const char *path)
{
    return top_size && !strncmp(path, top, top_size) && (!path[top_size] || path[top_size] == '/');
}

/* Path of a descriptor, if it is one that is watched. */
static int watched(int fd, char *path)
{
    char link[32];
    if (!top_size || fd < 0) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    int saved = errno;
    ssize_t n = readlink(link, path, PATH_MAX - 1);
    errno = saved;
    if (n <= 0) return 0;
    path[n] = 0;
    return below(path) || !strcmp(path, marks_path);
}

/* Absolute form of a path that is given to a call; 0 if it is not watched. */
static int resolve(int at, const char *name, char *path)
{
    char base[PATH_MAX];
    if (!top_size || !name) return 0;
    if (name[0] == '/') {
        snprintf(path, PATH_MAX, "%s", name);
    } else {
        int saved = errno;
        if (at == AT_FDCWD) {
            if (!getcwd(base, sizeof base)) return 0;
        } else {
            char link[32];
            snprintf(link, sizeof link, "/proc/self/fd/%d", at);
            ssize_t n = readlink(link, base, sizeof base - 1);
            if (n <= 0) return 0;
            base[n] = 0;
        }
        errno = saved;
        if (snprintf(path, PATH_MAX, "%s/%s", base, name) >= PATH_MAX) return 0;
    }
    return below(path);
}

static uint64_t inode_of(int fd)
{
    struct stat st;
    return fstat(fd, &st) ? 0 : st.st_ino;
}

static uint64_t inode_at(const char *path)
{
    struct stat st;
    int saved = errno;
    uint64_t inode = lstat(path, &st) ? 0 : st.st_ino;
    errno = saved;
    return inode;
}

static void enter(void)
{
    pthread_mutex_lock(&lock);
    if (log_fd < 0 || log_pid != getpid()) { /* a description of its own: locks are per description */
        log_pid = getpid();
        int (*real)(const char *, int, ...) = dlsym(RTLD_NEXT, "open");
        log_fd = real(log_path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0666);
    }
    struct flock all = {.l_type = F_WRLCK};
    while (fcntl(log_fd, F_OFD_SETLKW, &all) && errno == EINTR)
        ;
}

static void leave(void)
{
    struct flock all = {.l_type = F_UNLCK};
    int saved = errno;
    fcntl(log_fd, F_OFD_SETLK, &all);
    errno = saved;
    pthread_mutex_unlock(&lock);
}

static void record(int kind, const char *path, uint64_t inode, uint64_t offset, uint64_t size,
                   int dsync, int error, const struct iovec *data, int count, size_t data_size)
{
    int saved = errno;
    ssize_t (*real)(int, const struct iovec *, int) = dlsym(RTLD_NEXT, "writev");
    struct header h = {0x50414745, kind, dsync, strlen(path), error, inode, offset, size, data_size};
    struct iovec out[2 + 1024];
    int n = 2;
    out[0] = (struct iovec){&h, sizeof h};
    out[1] = (struct iovec){(void *)path, h.path_size};
    for (int i = 0; i < count && data_size && n < 1026; i++) {
        size_t take = data[i].iov_len < data_size ? data[i].iov_len : data_size;
        out[n++] = (struct iovec){data[i].iov_base, take};
        data_size -= take;
    }
    size_t want = 0;
    for (int i = 0; i < n; i++) want += out[i].iov_len;
    int first = 0;
    while (want) { /* IOV_MAX a call */
        int now = n - first > 1024 ? 1024 : n - first;
        ssize_t done = real(log_fd, out + first, now);
        if (done < 0) abort();
        want -= done;
        while (first < n && (size_t)done >= out[first].iov_len) done -= out[first++].iov_len;
        if (first < n) {
            out[first].iov_base = (char *)out[first].iov_base + done;
            out[first].iov_len -= done;
        }
    }
    errno = saved;
}

/* What the plan says of this call: 0 nothing, -1 fail with errno set, 1 short; may not return. */
static int due(int is_sync, int is_write)
{
    if (!fault || (fault == F_SYNC && !is_sync) || (fault == F_SHORT && !is_write)) return 0;
    counted++;
    if (counted != fault_at && !(fault_forever && counted > fault_at)) return 0;
    if (fault == F_KILL_BEFORE) kill(getpid(), SIGKILL);
    if (fault == F_SHORT) return 1;
    if (fault == F_KILL_AFTER) return 0;
    errno = fault_errno;
    return -1;
}

static void after(void)
{
    if (fault == F_KILL_AFTER && counted == fault_at) kill(getpid(), SIGKILL);
}

/* -------------------------------------------------------------------------------- writing */

static ssize_t plain(int fd, const struct iovec *v, int n, off_t offset, int positioned)
{
    ssize_t (*w)(int, const struct iovec *, int) = dlsym(RTLD_NEXT, "writev");
    ssize_t (*p)(int, const struct iovec *, int, off_t) = dlsym(RTLD_NEXT, "pwritev");
    return positioned ? p(fd, v, n, offset) : w(fd, v, n);
}

static ssize_t write_at(int fd, const struct iovec *v, int n, off_t offset, int positioned)
{
    char path[PATH_MAX];
    if (!watched(fd, path)) return plain(fd, v, n, offset, positioned);
    enter();
    if (!strcmp(path, marks_path)) {
        size_t size = 0;
        for (int i = 0; i < n; i++) size += v[i].iov_len;
        record(K_MARK, "", 0, 0, size, 0, 0, v, n, size);
        leave();
        return plain(fd, v, n, offset, positioned);
    }
    int flags = fcntl(fd, F_GETFL), what = due(0, 1);
    uint64_t inode = inode_of(fd);
    struct stat st;
    off_t (*seek)(int, off_t, int) = dlsym(RTLD_NEXT, "lseek");
    off_t place = offset;
    if (flags & O_APPEND) /* Linux appends whatever offset pwrite is given */
        place = fstat(fd, &st) ? 0 : st.st_size;
    else if (!positioned)
        place = seek(fd, 0, SEEK_CUR);
    size_t size = 0;
    for (int i = 0; i < n; i++) size += v[i].iov_len;
    ssize_t done = -1;
    if (what > 0 && size > 1) {
        size_t half = size / 2;
        struct iovec cut[1024];
        int m = 0;
        for (; m < n && m < 1024 && half; m++) {
            cut[m] = v[m];
            if (cut[m].iov_len > half) cut[m].iov_len = half;
            half -= cut[m].iov_len;
        }
        done = plain(fd, cut, m, offset, positioned);
    } else if (what >= 0) {
        done = plain(fd, v, n, offset, positioned);
    }
    record(K_WRITE, path + top_size, inode, place, size, !!(flags & (O_DSYNC | O_SYNC)),
           done < 0 ? errno : 0, v, n, done < 0 ? 0 : done);
    leave();
    after();
    return done;
}

ssize_t write(int fd, const void *data, size_t size)
{
    char path[PATH_MAX];
    REAL(ssize_t, "write", int, const void *, size_t);
    if (!watched(fd, path)) return real(fd, data, size);
    struct iovec v = {(void *)data, size};
    return write_at(fd, &v, 1, 0, 0);
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t offset)
{
    struct iovec v = {(void *)data, size};
    return write_at(fd, &v, 1, offset, 1);
}

ssize_t pwrite64(int fd, const void *data, size_t size, off64_t offset)
{
    return pwrite(fd, data, size, offset);
}

ssize_t writev(int fd, const struct iovec *v, int n) { return write_at(fd, v, n, 0, 0); }

ssize_t pwritev(int fd, const struct iovec *v, int n, off_t offset)
{
    return write_at(fd, v, n, offset, 1);
}

ssize_t pwritev64(int fd, const struct iovec *v, int n, off64_t offset)
{
    return write_at(fd, v, n, offset, 1);
}

/* -------------------------------------------------------------------------- size and space */

static int sized(int kind, int fd, off_t offset, off_t size, int (*call)(int, off_t, off_t, int),
                 int mode)
{
    char path[PATH_MAX];
    if (!watched(fd, path)) return call(fd, offset, size, mode);
    enter();
    uint64_t inode = inode_of(fd);
    int result = due(0, 0) < 0 ? -1 : call(fd, offset, size, mode);
    record(kind, path + top_size, inode, offset, size, 0, result ? errno : 0, NULL, 0, 0);
    leave();
    after();
    return result;
}

static int call_truncate(int fd, off_t offset, off_t size, int mode)
{
    int (*real)(int, off_t) = dlsym(RTLD_NEXT, "ftruncate");
    (void)offset, (void)mode;
    return real(fd, size);
}

static int call_allocate(int fd, off_t offset, off_t size, int mode)
{
    int (*real)(int, int, off_t, off_t) = dlsym(RTLD_NEXT, "fallocate");
    return real(fd, mode, offset, size);
}

int ftruncate(int fd, off_t size) { return sized(K_RESIZE, fd, 0, size, call_truncate, 0); }
int ftruncate64(int fd, off64_t size) { return ftruncate(fd, size); }

int truncate(const char *name, off_t size)
{
    int (*opens)(const char *, int, ...) = dlsym(RTLD_NEXT, "open");
    int fd = opens(name, O_WRONLY | O_CLOEXEC);
    if (fd < 0) return -1;
    int result = ftruncate(fd, size), saved = errno;
    close(fd);
    errno = saved;
    return result;
}

int truncate64(const char *name, off64_t size) { return truncate(name, size); }

int fallocate(int fd, int mode, off_t offset, off_t size)
{
    int kind = mode & FALLOC_FL_PUNCH_HOLE ? K_PUNCH
             : mode & ~FALLOC_FL_KEEP_SIZE ? K_UNKNOWN
             : mode ? K_RESERVE : K_ALLOCATE;
    return sized(kind, fd, offset, size, call_allocate, mode);
}

int fallocate64(int fd, int mode, off64_t offset, off64_t size)
{
    return fallocate(fd, mode, offset, size);
}

int posix_fallocate(int fd, off_t offset, off_t size)
{
    int saved = errno, error = sized(K_ALLOCATE, fd, offset, size, call_allocate, 0) ? errno : 0;
    errno = saved;
    return error;
}

int posix_fallocate64(int fd, off64_t offset, off64_t size)
{
    return posix_fallocate(fd, offset, size);
}

/* --------------------------------------------------------------------------------- syncing */

static int synced(int fd, const char *name)
{
    char path[PATH_MAX];
    int (*real)(int) = dlsym(RTLD_NEXT, name);
    if (!watched(fd, path)) return real(fd);
    struct stat st;
    fstat(fd, &st);
    const char *base = strrchr(path, '/');
    if (S_ISDIR(st.st_mode) ? !strcmp(swallowed, "/") : base && !strcmp(swallowed, base + 1))
        return 0;
    enter();
    int result = due(1, 0) < 0 ? -1 : real(fd);
    record(K_SYNC, path + top_size, inode_of(fd), 0, 0, 0, result ? errno : 0, NULL, 0, 0);
    leave();
    after();
    return result;
}

int fsync(int fd) { return synced(fd, "fsync"); }
int fdatasync(int fd) { return synced(fd, "fdatasync"); }

/* ----------------------------------------------------------------------------- directories */

static int opened(int at, const char *name, int flags, mode_t mode)
{
    char path[PATH_MAX];
    int (*real)(int, const char *, int, ...) = dlsym(RTLD_NEXT, "openat");
    if (!resolve(at, name, path) || !(flags & (O_CREAT | O_TRUNC)))
        return real(at, name, flags, mode);
    enter();
    uint64_t before = inode_at(path);
    int creates = flags & O_CREAT && !before, changes = creates || (flags & O_TRUNC && before);
    int fd = changes && due(0, 0) < 0 ? -1 : real(at, name, flags, mode);
    if (fd >= 0 && creates)
        record(K_CREATE, path + top_size, inode_of(fd), 0, 0, 0, 0, NULL, 0, 0);
    else if (fd >= 0 && flags & O_TRUNC)
        record(K_RESIZE, path + top_size, inode_of(fd), 0, 0, 0, 0, NULL, 0, 0);
    leave();
    after();
    return fd;
}

#define MODE                                                   \
    mode_t mode = 0;                                           \
    if (flags & (O_CREAT | O_TMPFILE)) {                       \
        va_list rest;                                          \
        va_start(rest, flags);                                 \
        mode = va_arg(rest, mode_t);                           \
        va_end(rest);                                          \
    }

int open(const char *name, int flags, ...) { MODE return opened(AT_FDCWD, name, flags, mode); }
int open64(const char *name, int flags, ...) { MODE return opened(AT_FDCWD, name, flags | O_LARGEFILE, mode); }
int openat(int at, const char *name, int flags, ...) { MODE return opened(at, name, flags, mode); }
int openat64(int at, const char *name, int flags, ...) { MODE return opened(at, name, flags | O_LARGEFILE, mode); }
int creat(const char *name, mode_t mode) { return opened(AT_FDCWD, name, O_CREAT | O_WRONLY | O_TRUNC, mode); }

static int removed(int kind, int at, const char *name, int flags)
{
    char path[PATH_MAX];
    int (*real)(int, const char *, int) = dlsym(RTLD_NEXT, "unlinkat");
    if (!resolve(at, name, path)) return real(at, name, flags);
    enter();
    uint64_t inode = inode_at(path);
    int result = due(0, 0) < 0 ? -1 : real(at, name, flags);
    record(kind, path + top_size, inode, 0, 0, 0, result ? errno : 0, NULL, 0, 0);
    leave();
    after();
    return result;
}

int unlink(const char *name) { return removed(K_UNLINK, AT_FDCWD, name, 0); }
int rmdir(const char *name) { return removed(K_RMDIR, AT_FDCWD, name, AT_REMOVEDIR); }
int unlinkat(int at, const char *name, int flags)
{
    return removed(flags & AT_REMOVEDIR ? K_RMDIR : K_UNLINK, at, name, flags);
}

int mkdirat(int at, const char *name, mode_t mode)
{
    char path[PATH_MAX];
    REAL(int, "mkdirat", int, const char *, mode_t);
    if (!resolve(at, name, path)) return real(at, name, mode);
    enter();
    int result = due(0, 0) < 0 ? -1 : real(at, name, mode);
    record(K_MKDIR, path + top_size, inode_at(path), 0, 0, 0, result ? errno : 0, NULL, 0, 0);
    leave();
    after();
    return result;
}

int mkdir(const char *name, mode_t mode) { return mkdirat(AT_FDCWD, name, mode); }

int renameat(int from_at, const char *from, int to_at, const char *to)
{
    char source[PATH_MAX], target[PATH_MAX];
    REAL(int, "renameat", int, const char *, int, const char *);
    int inside = resolve(from_at, from, source);
    if (!resolve(to_at, to, target) && !inside) return real(from_at, from, to_at, to);
    enter();
    int result = due(0, 0) < 0 ? -1 : real(from_at, from, to_at, to);
    struct iovec v = {target + top_size, below(target) ? strlen(target + top_size) : 0};
    record(inside && below(target) ? K_RENAME : K_UNKNOWN, source + top_size, inode_at(target), 0, 0,
           0, result ? errno : 0, &v, 1, v.iov_len);
    leave();
    after();
    return result;
}

int rename(const char *from, const char *to) { return renameat(AT_FDCWD, from, AT_FDCWD, to); }

/* ------------------------------------------------- what the replay could not follow: say so */

static void note(int kind, int fd)
{
    char path[PATH_MAX];
    if (!watched(fd, path)) return;
    enter();
    record(kind, path + top_size, inode_of(fd), 0, 0, 0, 0, NULL, 0, 0);
    leave();
}

void *mmap(void *address, size_t size, int protection, int flags, int fd, off_t offset)
{
    REAL(void *, "mmap", void *, size_t, int, int, int, off_t);
    if (fd >= 0 && flags & MAP_SHARED && protection & PROT_WRITE) note(K_SHARED_MAP, fd);
    return real(address, size, protection, flags, fd, offset);
}

void *mmap64(void *address, size_t size, int protection, int flags, int fd, off64_t offset)
{
    return mmap(address, size, protection, flags, fd, offset);
}

ssize_t copy_file_range(int in, off64_t *in_at, int out, off64_t *out_at, size_t size, unsigned flags)
{
    REAL(ssize_t, "copy_file_range", int, off64_t *, int, off64_t *, size_t, unsigned);
    note(K_UNKNOWN, out);
    return real(in, in_at, out, out_at, size, flags);
}

ssize_t sendfile(int out, int in, off_t *offset, size_t size)
{
    REAL(ssize_t, "sendfile", int, int, off_t *, size_t);
    note(K_UNKNOWN, out);
    return real(out, in, offset, size);
}

ssize_t sendfile64(int out, int in, off64_t *offset, size_t size)
{
    return sendfile(out, in, offset, size);
}

ssize_t pwritev2(int fd, const struct iovec *v, int n, off_t offset, int flags)
{
    REAL(ssize_t, "pwritev2", int, const struct iovec *, int, off_t, int);
    if (!flags && offset >= 0) return write_at(fd, v, n, offset, 1);
    note(K_UNKNOWN, fd);
    return real(fd, v, n, offset, flags);
}

ssize_t pwritev64v2(int fd, const struct iovec *v, int n, off64_t offset, int flags)
{
    return pwritev2(fd, v, n, offset, flags);
}
