// Folds: what is kept of a waiting guest's memory. A guest that waits has written to few lines of
// the pages that are its own; while it is one of many its pages are given back to the kernel, which
// then has the image's bytes there, and the lines that differ are kept beside. They are written
// back before the guest runs, or, of the pages concerned, before the host touches its memory.
#include "internal.h"
#include "lines.h"

#include <stdlib.h>

// Of a page with more lines that differ there is too little to gain.
enum { MOST_LINES = SV_LINES / 2, MOST_PAGES = 512 };

struct folded {
	uint32_t page, at; // at: of its first line, in lines
	uint64_t lines;    // one bit each; 0: they are back in the memory
};

struct sv_fold {
	uint32_t pages, left;
	sv_words *line;
	struct folded page[];
};

// The lines of a page that are not the image's.
static uint64_t differing(const sv_slot *s, uint32_t page) {
	const sv_words *w = (const sv_words *)(s->base + (size_t)page * SV_PAGE), *of = (const sv_words *)(s->image->bytes + (size_t)page * SV_PAGE);
	bool zero = sv_image_page_is_zero(s->image, page);
	uint64_t lines = 0;
	for (unsigned i = 0; i < SV_LINES; i++, w += SV_LINE_WORDS, of += SV_LINE_WORDS)
		lines |= (uint64_t)!(zero ? sv_line_zero(w) : sv_line_same(w, of)) << i;
	return lines;
}

// Room for what is kept of the pages; NULL: nothing is to be kept, or there is no memory for it.
static struct sv_fold *fold_new(uint32_t pages, size_t lines) {
	struct sv_fold *f = pages ? malloc(sizeof *f + pages * sizeof f->page[0]) : NULL;
	if (!f) return NULL;
	f->pages = f->left = 0;
	f->line = aligned_alloc(SV_LINE, lines * SV_LINE);
	if (f->line) return f;
	free(f);
	return NULL;
}

static void keep(struct sv_fold *f, const sv_slot *s, uint32_t page, uint64_t lines, uint32_t at) {
	f->page[f->pages++] = (struct folded){page, at, lines};
	f->left++;
	const sv_words *w = (const sv_words *)(s->base + (size_t)page * SV_PAGE);
	for (; lines; lines &= lines - 1, at++)
		sv_line_copy(f->line + (size_t)at * SV_LINE_WORDS, w + (size_t)__builtin_ctzll(lines) * SV_LINE_WORDS);
}

static void give_back(const sv_slot *s, const uint32_t *pages, size_t n) {
	for (size_t i = 0, run = 0; i < n; i++) {
		if (i + 1 < n && pages[i + 1] == pages[i] + 1) continue;
		sv_give_back(s->base + (size_t)pages[run] * SV_PAGE, s->base + ((size_t)pages[i] + 1) * SV_PAGE);
		run = i + 1;
	}
}

void sv_fold(sv_inst *in) {
	sv_slot *s = in->box->slot;
	uint32_t pages[MOST_PAGES], changed = 0;
	uint64_t lines[MOST_PAGES];
	size_t n = 0, all = 0, found = sv_slot_own_pages(s, pages, MOST_PAGES);
	for (size_t i = 0; i < found; i++) {
		uint64_t differ = differing(s, pages[i]);
		unsigned count = (unsigned)__builtin_popcountll(differ);
		if (count > MOST_LINES) continue;
		pages[n] = pages[i], lines[n++] = differ;
		changed += count > 0;
		all += count;
	}
	struct sv_fold *f = in->fold = fold_new(changed, all);
	size_t given = 0;
	uint32_t at = 0;
	for (size_t i = 0; i < n; i++) {
		if (lines[i] && !f) continue; // without room only what holds nothing of its own
		if (lines[i]) keep(f, s, pages[i], lines[i], at);
		at += (uint32_t)__builtin_popcountll(lines[i]);
		pages[given++] = pages[i];
	}
	in->v.folded = f != NULL;
	give_back(s, pages, given);
	if (f) sv_tally(SV_PAGES_FOLDED, f->pages);
}

static void write_back(const sv_slot *s, const struct sv_fold *f, const struct folded *p) {
	sv_words *w = (sv_words *)(s->base + (size_t)p->page * SV_PAGE);
	const sv_words *line = f->line + (size_t)p->at * SV_LINE_WORDS;
	for (uint64_t lines = p->lines; lines; lines &= lines - 1, line += SV_LINE_WORDS)
		sv_line_copy(w + (size_t)__builtin_ctzll(lines) * SV_LINE_WORDS, line);
}

void sv_unfold(sv_inst *in, uint64_t from, uint64_t to) {
	struct sv_fold *f = in->fold;
	if (!f || from >= to) return;
	for (struct folded *p = f->page; p < f->page + f->pages; p++) {
		if (!p->lines || p->page < from / SV_PAGE || p->page > (to - 1) / SV_PAGE) continue;
		write_back(in->box->slot, f, p);
		p->lines = 0;
		f->left--;
	}
	if (!f->left) sv_fold_drop(in);
}

void sv_fold_drop(sv_inst *in) {
	if (in->fold) free(in->fold->line);
	free(in->fold);
	in->fold = NULL;
	in->v.folded = false;
}
