// Pages, compared and written by cache lines. Of a page that instances write to, most lines are as
// the image has them: to compare costs less than to write.
#ifndef SELVAGE_LINES_H
#define SELVAGE_LINES_H

#include <stdbool.h>
#include <stdint.h>

typedef uint64_t sv_words __attribute__((vector_size(16), may_alias));
enum { SV_LINE_WORDS = 4, SV_LINE = SV_LINE_WORDS * sizeof(sv_words), SV_LINES = SV_PAGE / SV_LINE };

static inline bool sv_any(sv_words w) { return (w[0] | w[1]) != 0; }
static inline bool sv_line_zero(const sv_words *w) { return !sv_any((w[0] | w[1]) | (w[2] | w[3])); }
static inline bool sv_line_same(const sv_words *w, const sv_words *v) {
	return !sv_any((w[0] ^ v[0]) | (w[1] ^ v[1]) | (w[2] ^ v[2]) | (w[3] ^ v[3]));
}
static inline void sv_line_copy(sv_words *to, const sv_words *from) { to[0] = from[0], to[1] = from[1], to[2] = from[2], to[3] = from[3]; }

#endif
