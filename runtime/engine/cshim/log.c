// The log of one invocation, gathered until Go takes it.
#include "internal.h"

#include <time.h>

// A record: time (Unix ns, i64), level (i32), length (u32), stream (u8), text.
enum { RECORD = 17, OVERHEAD = 16 };

static bool reserve(sv_inst *in, size_t n) {
	if (in->v.log_len + n <= in->log_cap) return true;
	size_t cap = in->log_cap ? in->log_cap : 1024;
	while (cap < in->v.log_len + n) cap *= 2;
	uint8_t *more = realloc(in->v.log, cap);
	if (!more) return false;
	in->v.log = more;
	in->log_cap = (uint32_t)cap;
	return true;
}

// Adds to the record that is still open: a runtime prints a line piece by piece.
static void append(sv_inst *in, const uint8_t *text, size_t n) {
	uint32_t len;
	uint8_t *record = in->v.log + in->v.log_open - 1;
	memcpy(&len, record + 12, sizeof len);
	len += (uint32_t)n;
	memcpy(record + 12, &len, sizeof len);
	memcpy(in->v.log + in->v.log_len, text, n);
	in->v.log_len += (uint32_t)n;
}

static void begin(sv_inst *in, uint8_t stream, int32_t level) {
	uint8_t *record = in->v.log + in->v.log_len;
	int64_t now = (int64_t)sv_clock(CLOCK_REALTIME);
	memcpy(record, &now, sizeof now);
	memcpy(record + 8, &level, sizeof level);
	memset(record + 12, 0, 4);
	record[16] = stream;
	in->v.log_open = in->v.log_len + 1;
	in->v.log_len += RECORD;
}

void sv_log(sv_inst *in, uint8_t stream, int32_t level, const uint8_t *text, size_t n) {
	bool open = stream && in->v.log_open && in->v.log[in->v.log_open - 1 + 16] == stream;
	size_t cost = n + (open ? 0 : OVERHEAD);
	if (cost > in->log_limit - in->log_used || !reserve(in, n + RECORD)) {
		in->v.log_dropped++;
		in->v.log_open = 0;
		return;
	}
	in->log_used += (uint32_t)cost;
	if (!open) begin(in, stream, level);
	append(in, text, n);
	if (!stream || (n && text[n - 1] == '\n')) in->v.log_open = 0;
}
