// Slots: where instances' memories live. A slot is a private mapping of an
// image inside a reservation with guards; a write copies the page. After use it
// is made equal to the image again and kept for the next instance.
//
// It fails closed. Every call of a reset is checked; on any failure the slot is
// mapped over and never lent again (with mlockall, for one, madvise(DONTNEED)
// returns EINVAL and the bytes stay: so it is not used here).
#include "internal.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/types.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
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
#define MAPPING (SV_GUARD + SV_RESERVATION + SV_GUARD)

static int pagemap = -1;
static atomic_bool scanning;
static bool proven;

static pthread_mutex_t lock = PTHREAD_ADAPTIVE_MUTEX_INITIALIZER_NP; // of the free lists
static sv_slot *lru, *lru_last;

// ---- free lists (lock held)

static void list_push(sv_slot *s) {
	sv_image *im = s->image;
	s->image_prev = NULL, s->image_next = im->free;
	if (im->free) im->free->image_prev = s; else im->free_last = s;
	im->free = s;
	s->lru_prev = NULL, s->lru_next = lru;
	if (lru) lru->lru_prev = s; else lru_last = s;
	lru = s;
	atomic_fetch_add_explicit(&sv_count.free_slots, 1, memory_order_relaxed);
	atomic_fetch_add_explicit(&sv_count.resident_pages, s->resident, memory_order_relaxed);
}

static void list_remove(sv_slot *s) {
	sv_image *im = s->image;
	if (s->image_prev) s->image_prev->image_next = s->image_next; else im->free = s->image_next;
	if (s->image_next) s->image_next->image_prev = s->image_prev; else im->free_last = s->image_prev;
	if (s->lru_prev) s->lru_prev->lru_next = s->lru_next; else lru = s->lru_next;
	if (s->lru_next) s->lru_next->lru_prev = s->lru_prev; else lru_last = s->lru_prev;
	atomic_fetch_sub_explicit(&sv_count.free_slots, 1, memory_order_relaxed);
	atomic_fetch_sub_explicit(&sv_count.resident_pages, s->resident, memory_order_relaxed);
}

// ---- hot slots

// The slot that a processor used last has its memory in that processor's caches
// and its entries in that processor's TLB: it is kept aside for the processor's
// next instance of the image. Whoever looks for free slots gathers these first.
// A slot is in one place at every moment that no lock is held: an image that
// dies finds all of its own.
static struct hot {
	pthread_mutex_t lock; // taken before the free lists'
	sv_slot *slot;
} __attribute__((aligned(128))) hot[SV_PROCESSORS] = {[0 ... SV_PROCESSORS - 1] = {.lock = PTHREAD_ADAPTIVE_MUTEX_INITIALIZER_NP}};

static void give_free(sv_slot *s) {
	pthread_mutex_lock(&lock);
	list_push(s);
	pthread_mutex_unlock(&lock);
}

// Puts s aside; the slot that was there before becomes a free one, and is so told.
static bool hot_put(sv_slot *s) {
	struct hot *h = &hot[sv_processor()];
	pthread_mutex_lock(&h->lock);
	sv_slot *before = h->slot;
	h->slot = s;
	if (before) give_free(before);
	pthread_mutex_unlock(&h->lock);
	return before != NULL;
}

static sv_slot *hot_take(const sv_image *image) {
	struct hot *h = &hot[sv_processor()];
	pthread_mutex_lock(&h->lock);
	sv_slot *s = h->slot;
	if (s && s->image == image) h->slot = NULL;
	else s = NULL;
	pthread_mutex_unlock(&h->lock);
	return s;
}

static void gather(void) {
	for (struct hot *h = hot; h < hot + SV_PROCESSORS; h++) {
		pthread_mutex_lock(&h->lock);
		if (h->slot) give_free(h->slot);
		h->slot = NULL;
		pthread_mutex_unlock(&h->lock);
	}
}

// ---- mapping

static bool map_image(sv_slot *s) {
	sv_image *im = s->image;
	s->resident = 0;
	if (!im->size) return true;
	int flags = MAP_PRIVATE | MAP_FIXED | MAP_NORESERVE;
	return mmap(s->base, im->size, PROT_READ | PROT_WRITE, flags, im->fd, 0) != MAP_FAILED;
}

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23 // Linux 5.14
#endif

// Gives a new slot, in a few calls, its own copies of the pages that instances
// of the image write to: a page fault for each would cost more. What fails here
// is left to the page faults.
static void prefault(sv_slot *s) {
	const sv_warm *warm = &s->image->warm;
	if (atomic_load_explicit(&s->image->warm_is, memory_order_acquire) != 2) return;
	for (uint32_t i = 0; i < warm->runs; i++) {
		uint8_t *from = s->base + (size_t)warm->run[i].page * SV_PAGE;
		if (madvise(from, (size_t)warm->run[i].count * SV_PAGE, MADV_POPULATE_WRITE)) return;
	}
}

static void unmap(sv_slot *s) {
	munmap(s->mapping, MAPPING);
	free(s);
}

static sv_slot *slot_make(sv_image *image) {
	sv_slot *s = calloc(1, sizeof *s);
	if (!s) return NULL;
	void *p = mmap(NULL, MAPPING, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (p == MAP_FAILED) {
		free(s);
		return NULL;
	}
	s->image = image;
	s->mapping = p;
	s->base = s->mapping + SV_GUARD;
	s->size = s->high = image->size;
	if (map_image(s)) {
		prefault(s);
		return s;
	}
	unmap(s);
	return NULL;
}

// The slot's contents are not known to be gone: it is never lent again. Where
// mapping over works, the whole range is ours and can go back to the kernel.
// Where it does not, the range may hold a hole that someone else has mapped by
// now, so it must not be unmapped either: it is left as it is.
static void slot_retire(sv_slot *s) {
	int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED;
	if (mmap(s->mapping, MAPPING, PROT_NONE, flags, -1, 0) != MAP_FAILED) {
		unmap(s);
		return;
	}
	atomic_fetch_add(&sv_count.retired_slots, 1);
	free(s);
}

// ---- reset

static void copy_page(const sv_image *im, uint8_t *page, size_t offset) {
	if (sv_image_page_is_zero(im, offset / SV_PAGE)) memset(page, 0, SV_PAGE);
	else memcpy(page, im->bytes + offset, SV_PAGE);
}

static void warm_add(sv_warm *w, size_t page, size_t count) {
	if (w->runs < SV_WARM_RUNS) {
		w->run[w->runs].page = (uint32_t)page;
		w->run[w->runs].count = (uint32_t)count;
	}
	w->runs++;
	w->pages += (uint32_t)count;
}

// Keeps what an instance wrote to, if nothing is known yet and it is not too much.
static void warm_keep(sv_image *im, const sv_warm *seen) {
	int unknown = 0;
	if (!seen->runs || seen->runs > SV_WARM_RUNS || seen->pages > SV_WARM_PAGES) return;
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

enum scanned { SCAN_FAILED, SCAN_COPIED, SCAN_TOO_MUCH };

// Finds the pages that are the instance's own and copies the image's bytes over them, to the end.
static enum scanned scan_and_copy(sv_slot *s) {
	struct scan_region regions[REGIONS];
	struct scan_arg a = scan_of(s, regions);
	int64_t pages = 0, seen = 0;
	sv_warm wrote;
	wrote.runs = wrote.pages = 0;
	while (a.start < a.end) {
		int n = ioctl(pagemap, SCAN, &a);
		if (n < 0 || a.walk_end <= a.start || a.walk_end > a.end) return SCAN_FAILED;
		seen += n;
		for (int i = 0; i < n; i++) {
			uint64_t from = regions[i].start, to = regions[i].end;
			if (from < a.start || to > a.end || from >= to) return SCAN_FAILED;
			pages += (int64_t)((to - from) / SV_PAGE);
			if (pages > MAX_COPY_PAGES || seen > MAX_REGIONS || regions[i].categories & IS_SWAPPED) return SCAN_TOO_MUCH;
			warm_add(&wrote, (from - (uintptr_t)s->base) / SV_PAGE, (to - from) / SV_PAGE);
			for (; from < to; from += SV_PAGE) copy_page(s->image, (uint8_t *)(uintptr_t)from, from - (uintptr_t)s->base);
		}
		a.start = a.walk_end;
	}
	s->resident = pages;
	if (!atomic_load_explicit(&s->image->warm_is, memory_order_relaxed)) warm_keep(s->image, &wrote);
	atomic_fetch_add_explicit(&sv_count.pages_copied, (uint64_t)pages, memory_order_relaxed);
	return SCAN_COPIED;
}

static bool image_page(const void *env, const uint8_t *page) {
	const sv_slot *s = env;
	size_t offset = (size_t)(page - s->base);
	if (sv_image_page_is_zero(s->image, offset / SV_PAGE)) return sv_all_zero(page, SV_PAGE);
	return !memcmp(page, s->image->bytes + offset, SV_PAGE);
}

void sv_slot_trim(sv_slot *s) {
	struct scan_region regions[REGIONS];
	struct scan_arg a = scan_of(s, regions);
	int n = atomic_load_explicit(&scanning, memory_order_relaxed) && s->image->size ? ioctl(pagemap, SCAN, &a) : 0;
	for (int i = 0; i < n; i++) {
		if (regions[i].start < a.start || regions[i].end > a.end || regions[i].categories & IS_SWAPPED) continue;
		sv_trim_pages((uint8_t *)(uintptr_t)regions[i].start, (uint8_t *)(uintptr_t)regions[i].end, image_page, s);
	}
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

static bool slot_reset(sv_slot *s) {
	if (!drop_grown(s)) return false;
	if (!s->image->size) return true;
	if (atomic_load_explicit(&scanning, memory_order_relaxed)) {
		switch (scan_and_copy(s)) {
		case SCAN_COPIED:
			atomic_fetch_add_explicit(&sv_count.resets, 1, memory_order_relaxed);
			return true;
		case SCAN_FAILED:
			atomic_store(&scanning, false); // it will not work next time either
			return false;
		case SCAN_TOO_MUCH:
			break;
		}
	}
	atomic_fetch_add_explicit(&sv_count.remaps, 1, memory_order_relaxed);
	return map_image(s);
}

// ---- budget

static sv_slot *take_coldest(bool over_budget_only) {
	pthread_mutex_lock(&lock);
	sv_slot *s = lru_last;
	if (over_budget_only && sv_slots_have_room(0)) s = NULL;
	if (s) list_remove(s);
	pthread_mutex_unlock(&lock);
	return s;
}

// The hot slots, one a processor and each of at most MAX_COPY_PAGES, are beside the budget.
static void keep_budget(void) {
	if (sv_slots_have_room(0)) return;
	for (sv_slot *cold; (cold = take_coldest(true));) unmap(cold);
}

void sv_slots_settle(void) {
	gather();
	keep_budget();
}

static int evict(int n) {
	int done = 0;
	gather();
	for (sv_slot *s; done < n && (s = take_coldest(false)); done++) unmap(s);
	return done;
}

int sv_slots_evict(int n) {
	sv_boxes_drop(NULL);
	return evict(n);
}

void sv_slots_drop(sv_image *image) {
	gather();
	for (;;) {
		pthread_mutex_lock(&lock);
		sv_slot *s = image->free;
		if (s) list_remove(s);
		pthread_mutex_unlock(&lock);
		if (!s) return;
		unmap(s);
	}
}

bool sv_image_has_free(sv_image *image) {
	pthread_mutex_lock(&lock);
	bool has = image->free != NULL;
	pthread_mutex_unlock(&lock);
	return has;
}

bool sv_slot_renew(sv_slot *s) {
	s->inst = NULL;
	if (s->size != s->image->size) return false;
	s->clean = slot_reset(s);
	s->broken = !s->clean;
	return s->clean;
}

int64_t sv_slot_resident(const sv_slot *s) { return s->resident; }

bool sv_slots_have_room(int64_t pages) {
	return (atomic_load_explicit(&sv_count.resident_pages, memory_order_relaxed) + pages) * SV_PAGE <= sv_cfg.resident_budget;
}

static void slot_release(sv_slot *s) {
	s->inst = NULL;
	if (s->broken || (!s->clean && !slot_reset(s))) {
		slot_retire(s);
		return;
	}
	if (hot_put(s)) keep_budget();
}

static sv_slot *slot_take(sv_image *image) {
	sv_slot *s = hot_take(image);
	if (s) return s;
	pthread_mutex_lock(&lock);
	s = image->free;
	if (s) list_remove(s);
	pthread_mutex_unlock(&lock);
	if (!s) s = slot_make(image);
	// Addresses can run out before maps do: what other images' free slots have is given back.
	// Boxes are not: a guest's stack is no place to end others from.
	if (!s && evict(16) > 0) s = slot_make(image);
	return s;
}

// ---- wasmtime's memory creator

static uint8_t *memory_get(void *env, size_t *size, size_t *maximum) {
	sv_slot *s = env;
	*size = s->size;
	*maximum = SV_RESERVATION;
	return s->base;
}

static wasmtime_error_t *memory_grow(void *env, size_t n) {
	sv_slot *s = env;
	if (n <= s->size) return NULL;
	if (!s->inst || n > s->inst->memory_limit || n > SV_RESERVATION || n % SV_PAGE) {
		if (s->inst) s->inst->v.grow_refused = true;
		return wasmtime_error_new("over the memory limit");
	}
	if (mprotect(s->base + s->size, n - s->size, PROT_READ | PROT_WRITE)) {
		s->inst->v.grow_refused = true;
		return wasmtime_error_new("the node has no memory for it");
	}
	s->size = s->inst->v.memory_size = n;
	if (n > s->high) s->high = n;
	return NULL;
}

static void memory_free(void *env) { slot_release(env); }

void sv_slot_lend(sv_slot *s, sv_inst *in) {
	s->clean = false;
	s->inst = in;
	in->v.memory = s->base;
	in->v.memory_size = s->size;
}

wasmtime_error_t *sv_memory_new(void *env, const wasm_memorytype_t *ty, size_t minimum, size_t maximum, size_t reserved, size_t guard,
	wasmtime_linear_memory_t *out) {
	(void)env, (void)ty;
	sv_inst *in = sv_current;
	// A second one would be the heap that wasmtime keeps externref values in.
	if (!in || in->step != 0 || in->box->slot) return wasmtime_error_new("selvage: an instance has one memory, from its start (externref values are not supported)");
	sv_prog *prog = in->prog;
	if (minimum != prog->memory_min || maximum != prog->memory_max || minimum > prog->image->size || prog->image->size > maximum ||
		reserved != SV_RESERVATION || guard != SV_GUARD)
		return wasmtime_error_new("selvage: the image is not this code's");
	sv_slot *s = slot_take(prog->image);
	if (!s) {
		in->own_code = SV_TRAP_CAPACITY;
		return wasmtime_error_new("selvage: no room to map another memory");
	}
	in->box->slot = s;
	sv_slot_lend(s, in);
	*out = (wasmtime_linear_memory_t){.env = s, .get_memory = memory_get, .grow_memory = memory_grow, .finalizer = memory_free};
	return NULL;
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
	sv_slot *s = failed ? NULL : slot_make(image);
	bool ok = s && prove(s);
	if (s) unmap(s);
	free(failed);
	sv_image_free(image);
	return ok;
}

char *sv_slots_open(bool remap_only) {
	proven = scan_works();
	atomic_store(&scanning, proven && !remap_only);
	return NULL;
}

bool sv_scanning(void) { return atomic_load(&scanning); }
void sv_set_scanning(bool on) { atomic_store(&scanning, on && proven); }

// ---- audit

// Whether the kernel could read a byte there for us.
static bool readable(const int pipe_fds[2], const uint8_t *p) {
	char byte;
	if (write(pipe_fds[1], p, 1) != 1) return false;
	return read(pipe_fds[0], &byte, 1) == 1;
}

static char *audit_slot(const sv_slot *s, const int pipe_fds[2]) {
	const sv_image *im = s->image;
	char *message = NULL;
	for (size_t o = 0; o < im->size; o += SV_PAGE) {
		if (!memcmp(s->base + o, im->bytes + o, SV_PAGE)) continue;
		return asprintf(&message, "page %#zx differs from its image", o) < 0 ? strdup("a page differs") : message;
	}
	for (size_t o = im->size; o < s->high; o += SV_PAGE) {
		if (!readable(pipe_fds, s->base + o)) continue;
		return asprintf(&message, "page %#zx, once grown, can still be read", o) < 0 ? strdup("a grown page can be read") : message;
	}
	return NULL;
}

int64_t sv_image_audit(sv_image *image, char **message) {
	int pipe_fds[2];
	*message = pipe2(pipe_fds, O_CLOEXEC) ? sv_errno("audit: pipe") : NULL;
	if (*message) return -1;
	int64_t n = 0;
	sv_boxes_drop(NULL);
	gather();
	pthread_mutex_lock(&lock);
	for (sv_slot *s = image->free; s && !*message; s = s->image_next, n++) *message = audit_slot(s, pipe_fds);
	pthread_mutex_unlock(&lock);
	close(pipe_fds[0]);
	close(pipe_fds[1]);
	return *message ? -1 : n;
}
