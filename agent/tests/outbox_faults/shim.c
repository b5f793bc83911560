// A disk that fails, by seed: loaded under LD_PRELOAD, it stands between the program and what it does with the files
// of the outbox in $FAULT_HOME. tests/outbox_faults.rs compiles it.
//
//   FAULT=kind:at:seed:file   the operation number `at` goes wrong (from 1, of the writes and syncs of outbox.db and
//   what is beside it; with the file `db`, of outbox.db by itself):
//     sync     the first sync from there on fails with EIO, and what was written since the last one is lost
//     write    the first write from there on fails with EIO, after a part of it was written
//     full     writes that make a file longer fail with ENOSPC, after a part of it was written; 12 of them
//     short    every write from there on writes a part only, and says so
//     dir      every sync of the directory itself fails with EIO
//     power    the power fails: of what was not synced any sectors are lost, and the process is killed
//   FAULT_CLOCK=file     holds the seconds, as text, by which CLOCK_REALTIME is wrong
//
// A line on stderr says when it happened: "fault: kind at operation".
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define SECTOR 512

// A file by a descriptor of its own, which is never closed: that would drop the locks that SQLite has on it.
struct file {
	dev_t device;
	ino_t inode;
	int fd;
};

// What was in a place before it was written, so that a write can be lost.
struct undo {
	struct undo *older;
	struct file *file;
	off64_t at, length;
	size_t count;
	unsigned char *before;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct undo *unsynced;
static struct file files[64];
static unsigned long long operation, fails_at, dice;
static char kind[16], file_kind[16], home[4096];
static int happened, ready, left = 12;

static ssize_t (*next_pwrite)(int, const void *, size_t, off64_t);
static ssize_t (*next_write)(int, const void *, size_t);
static int (*next_fsync)(int);
static int (*next_fdatasync)(int);
static int (*next_ftruncate)(int, off64_t);

static unsigned long long roll(void)
{
	dice ^= dice << 13;
	dice ^= dice >> 7;
	dice ^= dice << 17;
	return dice;
}

static void prepare(void)
{
	if (ready)
		return;
	next_pwrite = dlsym(RTLD_NEXT, "pwrite64");
	next_write = dlsym(RTLD_NEXT, "write");
	next_fsync = dlsym(RTLD_NEXT, "fsync");
	next_fdatasync = dlsym(RTLD_NEXT, "fdatasync");
	next_ftruncate = dlsym(RTLD_NEXT, "ftruncate64");
	const char *fault = getenv("FAULT"), *where = getenv("FAULT_HOME");
	if (fault && where && sscanf(fault, "%15[a-z]:%llu:%llu:%15[a-z]", kind, &fails_at, &dice, file_kind) == 4)
		snprintf(home, sizeof home, "%s/outbox.db", where);
	dice = dice * 0x9E3779B97F4A7C15ull + 1;
	ready = 1;
}

// Whether it is one of the outbox's.
static int is_ours(int fd)
{
	char link[64], path[4096];
	if (!home[0])
		return 0;
	snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
	ssize_t length = readlink(link, path, sizeof path - 1);
	if (length < 0)
		return 0;
	path[length] = 0;
	return strncmp(path, home, strlen(home)) == 0;
}

static int ends_with(int fd, const char *end)
{
	char link[64], path[4096];
	snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
	ssize_t length = readlink(link, path, sizeof path - 1);
	size_t count = strlen(end);
	return length > (ssize_t)count && memcmp(path + length - count, end, count) == 0;
}

// Whether it is the directory that they are in.
static int is_directory_of_ours(int fd)
{
	char link[64], path[4096];
	size_t count = strlen(home) < sizeof "/outbox.db" ? 0 : strlen(home) - strlen("/outbox.db");
	snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
	ssize_t length = readlink(link, path, sizeof path - 1);
	return count && length == (ssize_t)count && memcmp(path, home, count) == 0;
}

static void tell(void)
{
	char line[96];
	if (happened++)
		return;
	int length = snprintf(line, sizeof line, "fault: %s at %llu\n", kind, operation);
	next_write(2, line, (size_t)length);
}

static int is_due(const char *what)
{
	return operation >= fails_at && strcmp(kind, what) == 0;
}

static struct file *file_of(int fd)
{
	struct stat64 now;
	char link[64];
	if (fstat64(fd, &now))
		abort();
	for (struct file *file = files; file < files + sizeof files / sizeof *files; file++) {
		if (!file->inode) {
			snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
			*file = (struct file){ now.st_dev, now.st_ino, open(link, O_RDWR | O_CLOEXEC) };
		}
		if (file->device == now.st_dev && file->inode == now.st_ino)
			return file;
	}
	abort();
}

static void remember(int fd, size_t count, off64_t at)
{
	struct stat64 now;
	struct undo *undo = calloc(1, sizeof *undo);
	if (!undo || fstat64(fd, &now))
		abort();
	*undo = (struct undo){ unsynced, file_of(fd), at, now.st_size, count, calloc(1, count + 1) };
	if (!undo->before || pread64(undo->file->fd, undo->before, count, at) < 0)
		abort();
	unsynced = undo;
}

// A write is lost, whole or in some of its sectors.
static void lose(struct undo *undo, int sectors)
{
	for (size_t from = 0; from < undo->count; from += SECTOR) {
		size_t count = undo->count - from < SECTOR ? undo->count - from : SECTOR;
		if (!sectors || roll() % 2)
			next_pwrite(undo->file->fd, undo->before + from, count, undo->at + (off64_t)from);
	}
	if (!sectors || roll() % 2)
		next_ftruncate(undo->file->fd, undo->length);
}

// Forgets what was written to the file, since it is on the disk now; or loses it.
static void synced(int fd, int lost)
{
	struct file *file = file_of(fd);
	for (struct undo **place = &unsynced; *place;) {
		struct undo *undo = *place;
		if (undo->file != file) {
			place = &undo->older;
			continue;
		}
		if (lost)
			lose(undo, 0);
		*place = undo->older;
		free(undo->before);
		free(undo);
	}
}

static void count_one(int fd)
{
	if (strcmp(file_kind, "db") || ends_with(fd, ".db"))
		operation++;
}

static void power_fails(void)
{
	tell();
	for (struct undo *undo = unsynced; undo; undo = undo->older)
		if (roll() % 4)
			lose(undo, roll() % 2 == 0);
	kill(getpid(), SIGKILL);
	for (;;)
		pause();
}

static ssize_t written(int fd, const void *from, size_t count, off64_t at)
{
	struct stat64 now;
	size_t part = count > 1 ? roll() % count : 0;
	count_one(fd);
	if (ends_with(fd, "-shm")) {
		// Only its length takes room.
		if (is_due("full") && left > 0 && !fstat64(fd, &now) && at + (off64_t)count > now.st_size) {
			left--;
			tell();
			errno = ENOSPC;
			return -1;
		}
		return next_pwrite(fd, from, count, at);
	}
	if (is_due("power"))
		power_fails();
	remember(fd, count, at);
	if (is_due("write") && !happened) {
		tell();
		next_pwrite(fd, from, part, at);
		errno = EIO;
		return -1;
	}
	if (is_due("full") && left > 0 && !fstat64(fd, &now) && at + (off64_t)count > now.st_size) {
		left--;
		tell();
		if (part)
			return next_pwrite(fd, from, part, at);
		errno = ENOSPC;
		return -1;
	}
	if (is_due("short") && part) {
		tell();
		return next_pwrite(fd, from, part, at);
	}
	return next_pwrite(fd, from, count, at);
}

static int sync_of(int fd, int (*next)(int))
{
	count_one(fd);
	if (is_due("power"))
		power_fails();
	if (is_due("sync") && !happened) {
		tell();
		synced(fd, 1);
		errno = EIO;
		return -1;
	}
	int result = next(fd);
	if (!result)
		synced(fd, 0);
	return result;
}

ssize_t pwrite64(int fd, const void *from, size_t count, off64_t at)
{
	prepare();
	if (!is_ours(fd))
		return next_pwrite(fd, from, count, at);
	pthread_mutex_lock(&lock);
	ssize_t result = written(fd, from, count, at);
	int error = errno;
	pthread_mutex_unlock(&lock);
	errno = error;
	return result;
}

ssize_t pwrite(int fd, const void *from, size_t count, off_t at)
{
	return pwrite64(fd, from, count, at);
}

static int any_sync(int fd, int (*next)(int))
{
	if (strcmp(kind, "dir") == 0 && is_directory_of_ours(fd)) {
		tell();
		errno = EIO;
		return -1;
	}
	if (!is_ours(fd))
		return next(fd);
	pthread_mutex_lock(&lock);
	int result = sync_of(fd, next), error = errno;
	pthread_mutex_unlock(&lock);
	errno = error;
	return result;
}

int fsync(int fd)
{
	prepare();
	return any_sync(fd, next_fsync);
}

int fdatasync(int fd)
{
	prepare();
	return any_sync(fd, next_fdatasync);
}

int clock_gettime(clockid_t which, struct timespec *time)
{
	int result = (int)syscall(SYS_clock_gettime, which, time);
	const char *file = getenv("FAULT_CLOCK");
	if (result || which != CLOCK_REALTIME || !file)
		return result;
	char text[32] = { 0 };
	int fd = open(file, O_RDONLY | O_CLOEXEC);
	if (fd >= 0) {
		if (read(fd, text, sizeof text - 1) > 0)
			time->tv_sec += atoll(text);
		close(fd);
	}
	return 0;
}
