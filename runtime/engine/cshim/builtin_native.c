// The native ABI's calls (sdk/abi, import module selvage_v1) that need no port.
// A pointer outside the guest's memory is a trap: a guest that lies to its host
// is broken, and saying so with a backtrace helps its developer most.
#include "internal.h"

#include <errno.h>
#include <sys/random.h>
#include <time.h>

// Statuses of sdk/abi.
enum { INVALID = -1, TOO_LARGE = -6, STATE = -10, INTERNAL = -11 };

static sv_verdict answer(uint64_t *result, int64_t value) {
	*result = (uint64_t)value;
	return SV_OK;
}

static sv_verdict bad_pointer(sv_inst *in) { return sv_die(in, SV_TRAP_POINTER, "passed a pointer or length outside its memory"); }

// Copies all of it or, when the buffer is too small, nothing; the length either way.
static sv_verdict give(sv_inst *in, const uint8_t *data, size_t n, uint64_t buf, uint64_t cap, uint64_t *result) {
	uint8_t *to = sv_at(in, buf, cap);
	if (!to) return bad_pointer(in);
	if (n <= cap && n) memcpy(to, data, n);
	return answer(result, (int64_t)n);
}

static sv_verdict request_head(sv_inst *in, const uint64_t *a, uint64_t *result) {
	return give(in, in->request, in->request_len, a[0], a[1], result);
}

static sv_verdict environment(sv_inst *in, const uint64_t *a, uint64_t *result) {
	const sv_blob *blob = &in->prog->blobs[SV_ENVIRONMENT];
	static const uint8_t none[4] = {0}; // no pairs
	if (!blob->data) return give(in, none, sizeof none, a[0], a[1], result);
	return give(in, blob->data, blob->len, a[0], a[1], result);
}

static sv_verdict request_read(sv_inst *in, const uint64_t *a, uint64_t *result) {
	if (!sv_at(in, a[0], a[1])) return bad_pointer(in);
	if (in->has_body && a[1]) return SV_WAIT;
	return answer(result, 0);
}

static bool head_keep(sv_inst *in, const uint8_t *headers, size_t n) {
	if (n > in->head_cap) {
		uint8_t *more = realloc(in->v.head, n);
		if (!more) return false;
		in->v.head = more;
		in->head_cap = n;
	}
	if (n) memcpy(in->v.head, headers, n);
	in->v.head_len = (uint32_t)n;
	return true;
}

static sv_verdict response_head(sv_inst *in, const uint64_t *a, uint64_t *result) {
	const uint8_t *headers = sv_at(in, a[1], a[2]);
	if (!headers) return bad_pointer(in);
	int32_t status = (int32_t)a[0];
	if (status < 100 || status > 999 || status == 101) return answer(result, INVALID);
	if (in->v.head_set || in->v.body_begun || in->v.sent) return in->v.second_heads++, answer(result, STATE);
	if (a[2] > in->head_limit) return in->v.large_heads++, answer(result, TOO_LARGE);
	if (status < 200) return SV_WAIT;
	if (!head_keep(in, headers, a[2])) return answer(result, INTERNAL);
	in->v.head_set = true;
	in->v.status = status;
	return answer(result, 0);
}

static sv_verdict response_write(sv_inst *in, const uint64_t *a, uint64_t *result) {
	const uint8_t *from = sv_at(in, a[0], a[1]);
	if (!from) return bad_pointer(in);
	in->v.body_begun = true;
	if (a[1] > SV_GATHER - in->v.body_len) return SV_WAIT;
	if (!in->v.body && !(in->v.body = malloc(SV_GATHER))) return answer(result, INTERNAL);
	memcpy(in->v.body + in->v.body_len, from, a[1]);
	in->v.body_len += (uint32_t)a[1];
	return answer(result, (int64_t)a[1]);
}

static sv_verdict native_log(sv_inst *in, const uint64_t *a, uint64_t *result) {
	const uint8_t *text = sv_at(in, a[1], a[2]);
	if (!text) return bad_pointer(in);
	sv_log(in, 0, (int32_t)a[0], text, a[2]);
	return answer(result, 0);
}

static sv_verdict clock_now(sv_inst *in, const uint64_t *a, uint64_t *result) {
	(void)in;
	if (a[0] > 1) return answer(result, INVALID);
	return answer(result, (int64_t)(a[0] ? sv_monotonic() : sv_clock(CLOCK_REALTIME)));
}

bool sv_random(uint8_t *p, size_t n) {
	while (n) {
		ssize_t got = getrandom(p, n, 0);
		if (got < 0 && errno == EINTR) continue;
		if (got <= 0) return false;
		p += got, n -= (size_t)got;
	}
	return true;
}

static sv_verdict native_random(sv_inst *in, const uint64_t *a, uint64_t *result) {
	uint8_t *to = sv_at(in, a[0], a[1]);
	if (!to) return bad_pointer(in);
	if (a[1] > SV_MAX_RANDOM) return answer(result, TOO_LARGE);
	return answer(result, sv_random(to, a[1]) ? 0 : INTERNAL);
}

// By the numbers of engine.Builtin.
static const sv_builtin table[] = {
	[1] = {"ii:i", request_head, NULL, false, 0},
	[2] = {"ii:i", request_read, NULL, true, 0},
	[3] = {"iii:i", response_head, NULL, true, 0},
	[4] = {"ii:i", response_write, NULL, true, 0},
	[5] = {"iii:i", native_log, NULL, false, 0},
	[6] = {"i:I", clock_now, NULL, false, SV_ASKED_TIME},
	[7] = {"ii:i", native_random, NULL, false, SV_ASKED_RANDOM},
	[8] = {"ii:i", environment, NULL, false, SV_ASKED_ENVIRONMENT},
};

const sv_builtin *sv_builtin_native(uint32_t id) {
	return id < sizeof table / sizeof *table && table[id].call ? &table[id] : NULL;
}
