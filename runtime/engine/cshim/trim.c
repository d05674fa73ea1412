// What a waiting guest gives back, where there are many: pages of its memory of which it wrote
// little (fold.c), and pages of its tables that are zeroes: wasmtime fills a table as its elements
// are used, but calloc writes all of it.
#include "internal.h"

#include <sys/mman.h>

// From how many instances on memory is worth more than the tens of microseconds that this takes.
enum { CROWD = 1024 };

// ---- tables

// The linker puts these in the place of libc's (cshim.go): wasmtime's C API tells
// of no table where it is, so what is calloc'ed while an instance is made is noted.
void *__real_calloc(size_t n, size_t size);
void *__real_realloc(void *p, size_t size);
void __real_free(void *p);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_realloc(void *p, size_t size);
void __wrap_free(void *p);

static void note(void *p, size_t size) {
	sv_inst *in = sv_current;
	if (!in || in->step != 0 || !p || size < 2 * SV_PAGE || in->box->nzeroed == SV_ZEROED) return;
	in->box->zeroed[in->box->nzeroed++] = (sv_zeroed){p, size};
}

// What is freed, or moves as it grows, is not this guest's any more. While a guest
// runs only its own thread does that; between guests nothing is trimmed, and nothing that was noted is freed.
static void forget(const void *p) {
	sv_box *b = sv_current ? sv_current->box : NULL;
	for (uint32_t i = 0; b && p && i < b->nzeroed; i++)
		if (b->zeroed[i].at == p) b->zeroed[i] = b->zeroed[--b->nzeroed];
}

void *__wrap_calloc(size_t n, size_t size) {
	void *p = __real_calloc(n, size);
	note(p, n * size);
	return p;
}

void *__wrap_realloc(void *p, size_t size) {
	forget(p);
	return __real_realloc(p, size);
}

void __wrap_free(void *p) {
	forget(p);
	__real_free(p);
}

bool sv_all_zero(const uint8_t *p, size_t n) { return n == 0 || (p[0] == 0 && !memcmp(p, p + 1, n - 1)); }

void sv_give_back(uint8_t *from, uint8_t *to) {
	if (from < to && !madvise(from, (size_t)(to - from), MADV_DONTNEED))
		sv_tally(SV_PAGES_TRIMMED, (to - from) / SV_PAGE);
}

// Only whole pages: those at the ends are shared with who knows whom.
static void trim_zeroed(const sv_zeroed *z) {
	uintptr_t from = ((uintptr_t)z->at + SV_PAGE - 1) / SV_PAGE * SV_PAGE, to = ((uintptr_t)z->at + z->size) / SV_PAGE * SV_PAGE;
	if (from >= to) return;
	uint8_t *run = (uint8_t *)from;
	for (uint8_t *p = run; p < (uint8_t *)to; p += SV_PAGE) {
		if (sv_all_zero(p, SV_PAGE)) continue;
		sv_give_back(run, p);
		run = p + SV_PAGE;
	}
	sv_give_back(run, (uint8_t *)to);
}

void sv_trim(sv_inst *in) {
	if (in->trimmed || sv_sum(SV_INSTANCES) <= CROWD) return;
	in->trimmed = true;
	if (in->box->slot) sv_fold(in);
	for (uint32_t i = 0; i < in->box->nzeroed; i++) trim_zeroed(&in->box->zeroed[i]);
}
