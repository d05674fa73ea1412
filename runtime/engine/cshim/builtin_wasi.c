// WASI preview 1, as a function at the edge has it: clocks, random, arguments,
// environment, the log as standard output, a real wait; no files, no sockets.
// Layouts and numbers: WASI snapshot preview1, typenames.witx.
#include "internal.h"

#include <time.h>

enum { SUCCESS = 0, EBADF_ = 8, EFAULT_ = 21, EINVAL_ = 28, EIO_ = 29, ENOTDIR_ = 54, ENOTSOCK_ = 57, ENOTSUP_ = 58, ESPIPE_ = 70, ENOTCAPABLE_ = 76 };
enum { CLOCKID_REALTIME, CLOCKID_MONOTONIC, CLOCKID_PROCESS_CPU, CLOCKID_THREAD_CPU };
enum { MAX_IOVS = 1024, MAX_SUBSCRIPTIONS = 1024 };

static sv_verdict code(uint64_t *result, int value) {
	*result = (uint64_t)value;
	return SV_OK;
}

static uint32_t get32(const uint8_t *p) {
	uint32_t v;
	memcpy(&v, p, sizeof v);
	return v;
}

static uint64_t get64(const uint8_t *p) {
	uint64_t v;
	memcpy(&v, p, sizeof v);
	return v;
}

static bool put32(sv_inst *in, uint64_t at, uint32_t v) {
	uint8_t *p = sv_at(in, at, sizeof v);
	if (p) memcpy(p, &v, sizeof v);
	return p != NULL;
}

static bool put64(sv_inst *in, uint64_t at, uint64_t v) {
	uint8_t *p = sv_at(in, at, sizeof v);
	if (p) memcpy(p, &v, sizeof v);
	return p != NULL;
}

// ---- arguments and environment

// Strings go to buf, and a pointer to each into the array.
static int strings_get(sv_inst *in, const sv_blob *blob, uint64_t array, uint64_t buf) {
	uint8_t *to = sv_at(in, buf, blob->len);
	if (!to || !sv_at(in, array, 4ull * blob->count)) return EFAULT_;
	if (blob->len) memcpy(to, blob->data, blob->len);
	size_t at = 0;
	for (uint32_t i = 0; i < blob->count && at < blob->len; i++) {
		put32(in, array + 4ull * i, (uint32_t)(buf + at));
		at += strnlen((const char *)blob->data + at, blob->len - at) + 1;
	}
	return SUCCESS;
}

static int strings_sizes(sv_inst *in, const sv_blob *blob, uint64_t count, uint64_t size) {
	return put32(in, count, blob->count) && put32(in, size, (uint32_t)blob->len) ? SUCCESS : EFAULT_;
}

static sv_verdict args_get(sv_inst *in, const uint64_t *a, uint64_t *r) { return code(r, strings_get(in, &in->prog->blobs[SV_ARGS], a[0], a[1])); }
static sv_verdict args_sizes_get(sv_inst *in, const uint64_t *a, uint64_t *r) { return code(r, strings_sizes(in, &in->prog->blobs[SV_ARGS], a[0], a[1])); }
static sv_verdict environ_get(sv_inst *in, const uint64_t *a, uint64_t *r) { return code(r, strings_get(in, &in->prog->blobs[SV_ENVIRON], a[0], a[1])); }
static sv_verdict environ_sizes_get(sv_inst *in, const uint64_t *a, uint64_t *r) { return code(r, strings_sizes(in, &in->prog->blobs[SV_ENVIRON], a[0], a[1])); }

// ---- clocks and random

static bool clock_read(const sv_inst *in, uint64_t id, uint64_t *now) {
	switch (id) {
	case CLOCKID_REALTIME: *now = sv_clock(CLOCK_REALTIME); return true;
	case CLOCKID_MONOTONIC: *now = sv_monotonic(); return true;
	case CLOCKID_PROCESS_CPU: // of the guest, to the last poll
	case CLOCKID_THREAD_CPU: *now = in->v.cpu_ns; return true;
	default: return false;
	}
}

static sv_verdict clock_time_get(sv_inst *in, const uint64_t *a, uint64_t *r) {
	uint64_t now;
	if (!clock_read(in, a[0], &now)) return code(r, EINVAL_);
	return code(r, put64(in, a[2], now) ? SUCCESS : EFAULT_);
}

static sv_verdict clock_res_get(sv_inst *in, const uint64_t *a, uint64_t *r) {
	uint64_t now;
	if (!clock_read(in, a[0], &now)) return code(r, EINVAL_);
	return code(r, put64(in, a[1], 1) ? SUCCESS : EFAULT_);
}

static sv_verdict random_get(sv_inst *in, const uint64_t *a, uint64_t *r) {
	uint8_t *to = sv_at(in, a[0], a[1]);
	if (!to) return code(r, EFAULT_);
	if (a[1] > SV_MAX_RANDOM) return code(r, EINVAL_);
	return code(r, sv_random(to, a[1]) ? SUCCESS : EIO_);
}

// ---- descriptors: 0 is at its end, 1 and 2 are the log, there are no others

enum { STDIN, STDOUT, STDERR, NOT_OPEN };
enum { FD_READ = 1 << 1, FD_FDSTAT_SET_FLAGS = 1 << 3, FD_WRITE = 1 << 6, FD_FILESTAT_GET = 1 << 21, POLL_FD_READWRITE = 1 << 27 };

// The stream that a descriptor is.
static int fd_stream(const sv_inst *in, uint64_t fd) {
	if (fd > 2 || in->fds[fd].is == SV_CLOSED) return NOT_OPEN;
	return in->fds[fd].is ? in->fds[fd].is - 1 : (int)fd;
}

static uint64_t fd_rights(const sv_inst *in, uint64_t fd) {
	uint64_t rights = fd_stream(in, fd) == STDIN ? FD_READ : FD_WRITE;
	return (rights | FD_FDSTAT_SET_FLAGS | FD_FILESTAT_GET | POLL_FD_READWRITE) & ~(uint64_t)in->fds[fd].gone;
}

// Whether a call that takes a right may be made on a descriptor. That a stream
// goes the other way is told as POSIX does.
static int fd_may(const sv_inst *in, uint64_t fd, uint64_t right) {
	int stream = fd_stream(in, fd);
	if (stream == NOT_OPEN || (right == FD_READ && stream != STDIN) || (right == FD_WRITE && stream == STDIN)) return EBADF_;
	return fd_rights(in, fd) & right ? SUCCESS : ENOTCAPABLE_;
}

static sv_verdict fd_write(sv_inst *in, const uint64_t *a, uint64_t *r) {
	int no = fd_may(in, a[0], FD_WRITE);
	if (no) return code(r, no);
	if (a[2] > MAX_IOVS) return code(r, EINVAL_);
	const uint8_t *iovs = sv_at(in, a[1], 8 * a[2]);
	if (!iovs || !sv_at(in, a[3], 4)) return code(r, EFAULT_);
	uint64_t total = 0;
	for (uint64_t i = 0; i < a[2]; i++) {
		uint32_t len = get32(iovs + 8 * i + 4);
		if (!sv_at(in, get32(iovs + 8 * i), len)) return code(r, EFAULT_);
		total += len;
	}
	if (total > UINT32_MAX) return code(r, EINVAL_);
	uint8_t stream = (uint8_t)fd_stream(in, a[0]);
	for (uint64_t i = 0; i < a[2]; i++) {
		uint32_t len = get32(iovs + 8 * i + 4);
		if (len) sv_log(in, stream, 0, sv_at(in, get32(iovs + 8 * i), len), len);
	}
	put32(in, a[3], (uint32_t)total);
	return code(r, SUCCESS);
}

static sv_verdict fd_read(sv_inst *in, const uint64_t *a, uint64_t *r) {
	int no = fd_may(in, a[0], FD_READ);
	if (no) return code(r, no);
	return code(r, put32(in, a[3], 0) ? SUCCESS : EFAULT_);
}

static sv_verdict fd_fdstat_get(sv_inst *in, const uint64_t *a, uint64_t *r) {
	int stream = fd_stream(in, a[0]);
	if (stream == NOT_OPEN) return code(r, EBADF_);
	uint8_t *p = sv_at(in, a[1], 24);
	if (!p) return code(r, EFAULT_);
	memset(p, 0, 24);
	p[0] = 2;          // filetype: character device
	p[2] = stream > 0; // fdflags: append
	uint64_t rights = fd_rights(in, a[0]);
	memcpy(p + 8, &rights, sizeof rights);
	return code(r, SUCCESS);
}

// What the flags change, a stream that never waits does not have: they are taken and forgotten.
static sv_verdict fd_fdstat_set_flags(sv_inst *in, const uint64_t *a, uint64_t *r) {
	enum { ALL_FLAGS = 31 };
	int no = fd_may(in, a[0], FD_FDSTAT_SET_FLAGS);
	return code(r, no ? no : a[1] > ALL_FLAGS ? EINVAL_ : SUCCESS);
}

static sv_verdict fd_fdstat_set_rights(sv_inst *in, const uint64_t *a, uint64_t *r) {
	if (fd_stream(in, a[0]) == NOT_OPEN) return code(r, EBADF_);
	uint64_t has = fd_rights(in, a[0]);
	if (a[1] & ~has || a[2]) return code(r, ENOTCAPABLE_); // rights can only be given up
	in->fds[a[0]].gone |= (uint32_t)(has & ~a[1]);
	in->v.fds_changed |= has != a[1];
	return code(r, SUCCESS);
}

static sv_verdict fd_close(sv_inst *in, const uint64_t *a, uint64_t *r) {
	if (fd_stream(in, a[0]) == NOT_OPEN) return code(r, EBADF_);
	in->fds[a[0]].is = SV_CLOSED;
	in->v.fds_changed = true;
	return code(r, SUCCESS);
}

// Moves a descriptor to one of the three numbers there are.
static sv_verdict fd_renumber(sv_inst *in, const uint64_t *a, uint64_t *r) {
	int stream = fd_stream(in, a[0]);
	if (stream == NOT_OPEN || a[1] > 2) return code(r, EBADF_);
	if (a[0] == a[1]) return code(r, SUCCESS);
	in->fds[a[1]].is = (uint8_t)(stream + 1);
	in->fds[a[1]].gone = in->fds[a[0]].gone;
	in->fds[a[0]].is = SV_CLOSED;
	in->v.fds_changed = true;
	return code(r, SUCCESS);
}

static sv_verdict fd_filestat_get(sv_inst *in, const uint64_t *a, uint64_t *r) {
	int no = fd_may(in, a[0], FD_FILESTAT_GET);
	if (no) return code(r, no);
	uint8_t *p = sv_at(in, a[1], 64);
	if (!p) return code(r, EFAULT_);
	memset(p, 0, 64);
	p[16] = 2; // filetype
	return code(r, SUCCESS);
}

// ---- poll_oneoff

enum { SUBSCRIPTION = 48, EVENT = 32, TAG_CLOCK = 0, TAG_FD_READ = 1, TAG_FD_WRITE = 2, FLAG_ABSOLUTE = 1 };

// One subscription's answer: whether it is due, its error, and else how long it still waits.
typedef struct due { bool now; uint16_t error; uint64_t wait; } due;

static due clock_due(const sv_inst *in, const uint8_t *s, bool waited) {
	uint64_t now, timeout = get64(s + 24);
	uint32_t id = get32(s + 16);
	if (!clock_read(in, id, &now)) return (due){.now = true, .error = EINVAL_};
	if (id >= CLOCKID_PROCESS_CPU) return (due){.now = true, .error = ENOTSUP_}; // stands still while the guest waits
	if (!(get32(s + 40) & FLAG_ABSOLUTE)) return (due){.now = waited || timeout == 0, .wait = timeout};
	return (due){.now = timeout <= now, .wait = timeout <= now ? 0 : timeout - now};
}

static uint16_t fd_pollable(const sv_inst *in, uint32_t fd, uint64_t right) {
	int no = fd_may(in, fd, right);
	return (uint16_t)(no ? no : fd_may(in, fd, POLL_FD_READWRITE));
}

static due subscription_due(const sv_inst *in, const uint8_t *s, bool waited) {
	switch (s[8]) {
	case TAG_CLOCK: return clock_due(in, s, waited);
	case TAG_FD_READ: return (due){.now = true, .error = fd_pollable(in, get32(s + 16), FD_READ)};
	case TAG_FD_WRITE: return (due){.now = true, .error = fd_pollable(in, get32(s + 16), FD_WRITE)};
	default: return (due){.now = true, .error = EINVAL_};
	}
}

static void put_event(uint8_t *e, const uint8_t *s, uint16_t error) {
	memset(e, 0, EVENT);
	memcpy(e, s, 8); // userdata
	memcpy(e + 8, &error, sizeof error);
	e[10] = s[8];
}

// A guest whose events overlap its subscriptions gets the nonsense it asked for, inside its own memory.
static uint32_t write_events(const uint8_t *subs, uint64_t n, uint8_t *events, const bool *is_due, const uint16_t *errors) {
	uint32_t count = 0;
	uint8_t one[SUBSCRIPTION];
	for (uint64_t i = 0; i < n; i++) {
		if (!is_due[i]) continue;
		memcpy(one, subs + SUBSCRIPTION * i, SUBSCRIPTION);
		put_event(events + EVENT * count++, one, errors[i]);
	}
	return count;
}

// After a wait of waited ns every relative clock of at most that is due, and an
// absolute one by its clock; or, if the clock was set back meanwhile and none
// is, those that are nearest: a poll that succeeds has an event.
static uint32_t collect(sv_inst *in, const uint64_t *a, uint64_t waited, uint64_t *wait) {
	uint64_t n = a[2];
	const uint8_t *subs = sv_at(in, a[0], SUBSCRIPTION * n);
	bool is_due[MAX_SUBSCRIPTIONS];
	uint16_t errors[MAX_SUBSCRIPTIONS];
	uint64_t waits[MAX_SUBSCRIPTIONS];
	bool any = false;
	*wait = UINT64_MAX;
	for (uint64_t i = 0; i < n; i++) {
		const uint8_t *s = subs + SUBSCRIPTION * i;
		due d = subscription_due(in, s, waited && get64(s + 24) <= waited);
		is_due[i] = d.now;
		errors[i] = d.error;
		waits[i] = d.wait;
		any |= d.now;
		if (!d.now && d.wait < *wait) *wait = d.wait;
	}
	for (uint64_t i = 0; waited && !any && i < n; i++) is_due[i] = waits[i] == *wait;
	return write_events(subs, n, sv_at(in, a[1], EVENT * n), is_due, errors);
}

static sv_verdict poll_oneoff(sv_inst *in, const uint64_t *a, uint64_t *r) {
	if (a[2] == 0 || a[2] > MAX_SUBSCRIPTIONS) return code(r, EINVAL_);
	if (!sv_at(in, a[0], SUBSCRIPTION * a[2]) || !sv_at(in, a[1], EVENT * a[2]) || !sv_at(in, a[3], 4)) return code(r, EFAULT_);
	uint64_t wait;
	uint32_t count = collect(in, a, 0, &wait);
	if (count) {
		put32(in, a[3], count);
		return code(r, SUCCESS);
	}
	in->poll_args[0] = a[0], in->poll_args[1] = a[1], in->poll_args[2] = a[2], in->poll_args[3] = a[3];
	in->poll_wait = wait;
	in->v.args[0] = wait;
	in->v.nargs = 1;
	return SV_WAIT;
}

static int64_t poll_oneoff_finish(sv_inst *in, const uint64_t *unused, int64_t answer) {
	(void)unused;
	if (answer) return answer; // an errno of Go's choosing
	uint64_t wait;
	uint32_t count = collect(in, in->poll_args, in->poll_wait, &wait);
	put32(in, in->poll_args[3], count);
	return SUCCESS;
}

// ---- the rest

static sv_verdict sched_yield_(sv_inst *in, const uint64_t *a, uint64_t *r) {
	(void)in, (void)a;
	return code(r, SUCCESS);
}

static sv_verdict proc_exit(sv_inst *in, const uint64_t *a, uint64_t *r) {
	(void)r;
	in->v.exit_status = (int32_t)a[0];
	return sv_die(in, SV_TRAP_EXIT, "called proc_exit");
}

static sv_verdict bad_fd(sv_inst *in, const uint64_t *a, uint64_t *r) {
	(void)in, (void)a;
	return code(r, EBADF_);
}

// A call that a stream of bytes has no use for: bad on it in one way, and EBADF elsewhere.
static sv_verdict stream(const sv_inst *in, uint64_t fd, uint64_t *r, int error) {
	return code(r, fd_stream(in, fd) == NOT_OPEN ? EBADF_ : error);
}
static sv_verdict not_seekable(sv_inst *in, const uint64_t *a, uint64_t *r) { return stream(in, a[0], r, ESPIPE_); }
static sv_verdict not_file(sv_inst *in, const uint64_t *a, uint64_t *r) { return stream(in, a[0], r, EINVAL_); }
static sv_verdict not_directory(sv_inst *in, const uint64_t *a, uint64_t *r) { return stream(in, a[0], r, ENOTDIR_); }
static sv_verdict not_socket(sv_inst *in, const uint64_t *a, uint64_t *r) { return stream(in, a[0], r, ENOTSOCK_); }
static sv_verdict not_capable(sv_inst *in, const uint64_t *a, uint64_t *r) { return stream(in, a[0], r, ENOTCAPABLE_); }
static sv_verdict symlink_(sv_inst *in, const uint64_t *a, uint64_t *r) { return stream(in, a[2], r, ENOTDIR_); } // (old, old_len, fd, new, new_len)

static sv_verdict not_supported(sv_inst *in, const uint64_t *a, uint64_t *r) {
	(void)in, (void)a;
	return code(r, ENOTSUP_);
}

// By the numbers of engine.Builtin.
static const sv_builtin table[] = {
	{"ii:i", args_get, NULL, false, 0},
	{"ii:i", args_sizes_get, NULL, false, 0},
	{"ii:i", environ_get, NULL, false, SV_ASKED_ENVIRONMENT},
	{"ii:i", environ_sizes_get, NULL, false, SV_ASKED_ENVIRONMENT},
	{"ii:i", clock_res_get, NULL, false, 0},
	{"iIi:i", clock_time_get, NULL, false, SV_ASKED_TIME},
	{"ii:i", random_get, NULL, false, SV_ASKED_RANDOM},
	{"iiii:i", fd_write, NULL, false, 0},
	{"iiii:i", fd_read, NULL, false, 0},
	{"ii:i", fd_fdstat_get, NULL, false, 0},
	{"ii:i", fd_fdstat_set_flags, NULL, false, 0},
	{"ii:i", fd_filestat_get, NULL, false, 0},
	{"i:i", fd_close, NULL, false, 0},
	{"*:i", not_seekable, NULL, false, 0},
	{"iiii:i", poll_oneoff, poll_oneoff_finish, true, 0},
	{":i", sched_yield_, NULL, false, 0},
	{"i:", proc_exit, NULL, false, 0},
	{"*:i", bad_fd, NULL, false, 0},
	{"*:i", not_supported, NULL, false, 0},
	{"*:i", not_file, NULL, false, 0},
	{"*:i", not_directory, NULL, false, 0},
	{"*:i", not_socket, NULL, false, 0},
	{"iII:i", fd_fdstat_set_rights, NULL, false, 0},
	{"ii:i", fd_renumber, NULL, false, 0},
	{"iIIi:i", not_capable, NULL, false, 0}, // fd_filestat_set_times
	{"iiiii:i", symlink_, NULL, false, 0},
};

const sv_builtin *sv_builtin_wasip1(uint32_t id) {
	enum { FIRST = 32 };
	return id >= FIRST && id - FIRST < sizeof table / sizeof *table ? &table[id - FIRST] : NULL;
}
