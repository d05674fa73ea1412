// Resets: how a slot that was used is made equal to its image again. The pages that are its
// own have the image's copied over them; which those are the kernel tells (PAGEMAP_SCAN), where
// it is not known without. Where it cannot tell, or there are many, the image is mapped anew.
//
// It fails closed: every call is checked, and a slot of which one failed is not lent again.
#include "internal.h"
#include "lines.h"

#include <fcntl.h>
#include <linux/types.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

// PAGEMAP_SCAN (Linux 6.7), spelled out for older headers.
struct scan_arg { __u64 size, flags, start, end, walk_end, vec, vec_len, max_pages, category_inverted, category_mask, category_anyof_mask, return_mask; };
struct scan_region { __u64 start, end, categories; };
#define SCAN _IOWR('f', 16, struct scan_arg)
enum { IS_FILE = 1 << 2, IS_PRESENT = 1 << 3, IS_SWAPPED = 1 << 4 };

// A slot with more than this to copy back is mapped anew instead: one large
// invocation must not leave its pages resident for ever.
enum { MAX_COPY_PAGES = 1024, MAX_REGIONS = 256, REGIONS = 64 };

#define BIG_GROWTH ((size_t)1 << 20)

static int pagemap = -1;
static atomic_bool scanning;
static bool proven;
static bool counting; // the kernel counts a thread's page faults, all of them

// ---- scan

static void copy_page(const sv_image *im, uint8_t *page, size_t offset) {
	sv_words *w = (sv_words *)page, *end = w + SV_LINES * SV_LINE_WORDS;
	const sv_words *from = (const sv_words *)(im->bytes + offset);
	if (sv_image_page_is_zero(im, offset / SV_PAGE)) {
		for (; w < end; w += SV_LINE_WORDS)
			if (!sv_line_zero(w)) memset(w, 0, SV_LINE);
		return;
	}
	for (; w < end; w += SV_LINE_WORDS, from += SV_LINE_WORDS)
		if (!sv_line_same(w, from)) sv_line_copy(w, from);
}

static void runs_add(sv_runs *w, size_t page, size_t count) {
	if (w->runs < SV_RUNS) {
		w->run[w->runs].page = (uint32_t)page;
		w->run[w->runs].count = (uint32_t)count;
	}
	w->runs++;
	w->pages += (uint32_t)count;
}

// Keeps what an instance wrote to, if nothing is known yet and it is not too much.
static void warm_keep(sv_image *im, const sv_runs *seen) {
	int unknown = 0;
	if (!seen->runs || seen->runs > SV_RUNS || seen->pages > SV_WARM_PAGES) return;
	if (!atomic_compare_exchange_strong(&im->warm_is, &unknown, 1)) return;
	im->warm = *seen;
	atomic_store_explicit(&im->warm_is, 2, memory_order_release);
}

// Asks for the pages that are the instance's own: in memory or swapped out, and not the image's.
static struct scan_arg scan_of(const sv_slot *s, struct scan_region regions[REGIONS]) {
	return (struct scan_arg){
		.size = sizeof(struct scan_arg), .start = (__u64)(uintptr_t)s->base, .end = (__u64)(uintptr_t)s->base + s->image->size,
		.vec = (__u64)(uintptr_t)regions, .vec_len = REGIONS,
		.category_inverted = IS_FILE, .category_mask = IS_FILE, // not file-backed, and
		.category_anyof_mask = IS_PRESENT | IS_SWAPPED, .return_mask = IS_PRESENT | IS_SWAPPED,
	};
}

// Notes which pages are the slot's own, if they are few.
static void own_keep(sv_slot *s, const sv_runs *own) {
	if (own->runs > SV_RUNS) return;
	if (own->runs > s->own_room) {
		sv_run *more = realloc(s->own, own->runs * sizeof *more);
		if (!more) return;
		s->own = more, s->own_room = own->runs;
	}
	if (own->runs) memcpy(s->own, own->run, own->runs * sizeof *s->own);
	s->own_runs = own->runs;
	s->own_known = true;
}

enum scanned { SCAN_FAILED, SCAN_COPIED, SCAN_TOO_MUCH };

// Finds the pages that are the instance's own and copies the image's bytes over them, to the end.
static enum scanned scan_and_copy(sv_slot *s) {
	struct scan_region regions[REGIONS];
	struct scan_arg a = scan_of(s, regions);
	int64_t pages = 0, seen = 0;
	sv_runs own;
	own.runs = own.pages = 0;
	s->own_known = false;
	while (a.start < a.end) {
		int n = ioctl(pagemap, SCAN, &a);
		if (n < 0 || a.walk_end <= a.start || a.walk_end > a.end) return SCAN_FAILED;
		seen += n;
		for (int i = 0; i < n; i++) {
			uint64_t from = regions[i].start, to = regions[i].end;
			if (from < a.start || to > a.end || from >= to) return SCAN_FAILED;
			pages += (int64_t)((to - from) / SV_PAGE);
			if (pages > MAX_COPY_PAGES || seen > MAX_REGIONS || regions[i].categories & IS_SWAPPED) return SCAN_TOO_MUCH;
			runs_add(&own, (from - (uintptr_t)s->base) / SV_PAGE, (to - from) / SV_PAGE);
			for (; from < to; from += SV_PAGE) copy_page(s->image, (uint8_t *)(uintptr_t)from, from - (uintptr_t)s->base);
		}
		a.start = a.walk_end;
	}
	s->resident = pages;
	own_keep(s, &own);
	if (!atomic_load_explicit(&s->image->warm_is, memory_order_relaxed)) warm_keep(s->image, &own);
	sv_tally(SV_PAGES_COPIED, pages);
	return SCAN_COPIED;
}

size_t sv_slot_own_pages(sv_slot *s, uint32_t *pages, size_t most) {
	struct scan_region regions[REGIONS];
	struct scan_arg a = scan_of(s, regions);
	size_t found = 0;
	int n = atomic_load_explicit(&scanning, memory_order_relaxed) && s->image->size ? ioctl(pagemap, SCAN, &a) : 0;
	for (int i = 0; i < n; i++) {
		if (regions[i].start < a.start || regions[i].end > a.end || regions[i].categories & IS_SWAPPED) continue;
		uint32_t page = (uint32_t)((regions[i].start - a.start) / SV_PAGE), end = (uint32_t)((regions[i].end - a.start) / SV_PAGE);
		while (page < end && found < most) pages[found++] = page++;
	}
	return found;
}

// What was grown is replaced whole, by memory that nothing can reach.
static bool drop_grown(sv_slot *s) {
	size_t from = s->image->size;
	if (s->size <= from) return true;
	// Giving much back takes long, and mmap would hold up every other mapping of the process meanwhile. This
	// holds up nobody, and need not work: what counts is the mapping below.
	if (s->size - from > BIG_GROWTH) (void)madvise(s->base + from, s->size - from, MADV_DONTNEED);
	int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED;
	if (mmap(s->base + from, s->size - from, PROT_NONE, flags, -1, 0) == MAP_FAILED) return false;
	s->size = from;
	return true;
}

// ---- what is known without asking
//
// A page becomes the slot's own by a fault of the thread that first writes to it, and stays so.
// Where all that can have written to a slot since its last reset was this thread, within one call,
// and the thread had no fault since it last looked, the slot's own pages are those found then.
// To look costs a third of a scan.

static _Thread_local int64_t faults_seen = -1;

static int64_t faults(void) {
	struct rusage u;
	return getrusage(RUSAGE_THREAD, &u) ? -1 : (int64_t)u.ru_minflt + (int64_t)u.ru_majflt;
}

// Whether this thread had no fault since it was last asked.
static bool no_faults(void) {
	int64_t before = faults_seen;
	faults_seen = faults();
	return faults_seen >= 0 && faults_seen == before;
}

static void copy_own(const sv_slot *s) {
	for (const sv_run *run = s->own; run < s->own + s->own_runs; run++) {
		size_t offset = (size_t)run->page * SV_PAGE, to = offset + (size_t)run->count * SV_PAGE;
		for (; offset < to; offset += SV_PAGE) copy_page(s->image, s->base + offset, offset);
	}
}

static bool reset_known(sv_slot *s, bool one_call) {
	if (!counting || !one_call || !no_faults() || !s->own_known) return false;
	copy_own(s);
	sv_tally(SV_PAGES_COPIED, s->resident);
	sv_tally(SV_KNOWN_RESETS, 1);
	return true;
}

// ---- reset

bool sv_slot_reset(sv_slot *s, bool one_call) {
	if (!drop_grown(s)) return false;
	if (!s->image->size) return true;
	if (atomic_load_explicit(&scanning, memory_order_relaxed)) {
		if (reset_known(s, one_call)) {
			sv_tally(SV_RESETS, 1);
			return true;
		}
		switch (scan_and_copy(s)) {
		case SCAN_COPIED:
			sv_tally(SV_RESETS, 1);
			return true;
		case SCAN_FAILED:
			atomic_store(&scanning, false); // it will not work next time either
			return false;
		case SCAN_TOO_MUCH:
			break;
		}
	}
	sv_tally(SV_REMAPS, 1);
	return sv_slot_map(s);
}

// ---- proof

// Dirties one page of four and looks: an fd opened by a parent, or one that a
// sandbox has blinded, says "clean" and would hand on a tenant's bytes.
static bool prove(sv_slot *s) {
	volatile uint8_t *p = s->base;
	if (p[0] != 1 || p[3 * SV_PAGE] != 0) return false; // in memory, and the image's
	p[SV_PAGE] = 7;
	p[2 * SV_PAGE] = 8;
	if (scan_and_copy(s) != SCAN_COPIED || s->resident != 2) return false;
	return p[SV_PAGE] == 2 && p[2 * SV_PAGE] == 0;
}

// A kernel that is not Linux may not count, or not for the thread.
static bool faults_are_counted(sv_slot *s) {
	volatile uint8_t *p = s->base;
	(void)no_faults();
	p[4 * SV_PAGE] = 1; // of the image, and not the slot's own yet
	int64_t first = faults_seen;
	bool one = !no_faults() && faults_seen > first;
	(void)p[5 * SV_PAGE]; // read first
	(void)no_faults();
	p[5 * SV_PAGE] = 1;
	return one && !no_faults();
}

static bool scan_works(void) {
	pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	if (pagemap < 0) return false;
	sv_image *image;
	char *failed = sv_image_new(65536, &image);
	if (failed) {
		free(failed);
		return false;
	}
	uint8_t page[SV_PAGE] = {1};
	failed = sv_image_write(image, 0, page, sizeof page);
	page[0] = 2;
	if (!failed) failed = sv_image_write(image, SV_PAGE, page, sizeof page);
	if (!failed) failed = sv_image_seal(image);
	sv_slot *s = failed ? NULL : sv_slot_make(image);
	bool ok = s && prove(s);
	counting = ok && faults_are_counted(s);
	if (s) sv_slot_unmap(s);
	free(failed);
	sv_image_free(image);
	return ok;
}

char *sv_resets_open(bool remap_only) {
	proven = scan_works();
	atomic_store(&scanning, proven && !remap_only);
	return NULL;
}

bool sv_scanning(void) { return atomic_load(&scanning); }
void sv_set_scanning(bool on) { atomic_store(&scanning, on && proven); }

