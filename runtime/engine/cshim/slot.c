// Slots: where instances' memories live. A slot is a private mapping of an
// image inside a reservation with guards; a write copies the page. After use it
// is made equal to the image again and kept for the next instance.
//
// It fails closed. Every call of a reset is checked; on any failure the slot is
// mapped over and never lent again (with mlockall, for one, madvise(DONTNEED)
// returns EINVAL and the bytes stay: no reset relies on it).
#include "internal.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#define MAPPING (SV_GUARD + SV_RESERVATION + SV_GUARD)

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
	sv_tally(SV_RESIDENT, s->resident);
}

static void list_remove(sv_slot *s) {
	sv_image *im = s->image;
	if (s->image_prev) s->image_prev->image_next = s->image_next; else im->free = s->image_next;
	if (s->image_next) s->image_next->image_prev = s->image_prev; else im->free_last = s->image_prev;
	if (s->lru_prev) s->lru_prev->lru_next = s->lru_next; else lru = s->lru_next;
	if (s->lru_next) s->lru_next->lru_prev = s->lru_prev; else lru_last = s->lru_prev;
	atomic_fetch_sub_explicit(&sv_count.free_slots, 1, memory_order_relaxed);
	sv_tally(SV_RESIDENT, -s->resident);
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

bool sv_slot_map(sv_slot *s) {
	sv_image *im = s->image;
	s->own_known = false;
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
	const sv_runs *warm = &s->image->warm;
	if (atomic_load_explicit(&s->image->warm_is, memory_order_acquire) != 2) return;
	for (uint32_t i = 0; i < warm->runs; i++) {
		uint8_t *from = s->base + (size_t)warm->run[i].page * SV_PAGE;
		if (madvise(from, (size_t)warm->run[i].count * SV_PAGE, MADV_POPULATE_WRITE)) return;
	}
}

void sv_slot_unmap(sv_slot *s) {
	munmap(s->mapping, MAPPING);
	free(s->own);
	free(s);
}

sv_slot *sv_slot_make(sv_image *image) {
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
	if (sv_slot_map(s)) {
		prefault(s);
		return s;
	}
	sv_slot_unmap(s);
	return NULL;
}

// The slot's contents are not known to be gone: it is never lent again. Where
// mapping over works, the whole range is ours and can go back to the kernel.
// Where it does not, the range may hold a hole that someone else has mapped by
// now, so it must not be unmapped either: it is left as it is.
static void slot_retire(sv_slot *s) {
	int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED;
	if (mmap(s->mapping, MAPPING, PROT_NONE, flags, -1, 0) != MAP_FAILED) {
		sv_slot_unmap(s);
		return;
	}
	atomic_fetch_add(&sv_count.retired_slots, 1);
	free(s->own);
	free(s);
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

// The hot slots, one a processor and each of at most reset.c's MAX_COPY_PAGES, are beside the budget.
static void keep_budget(void) {
	if (sv_slots_have_room(0)) return;
	for (sv_slot *cold; (cold = take_coldest(true));) sv_slot_unmap(cold);
}

void sv_slots_settle(void) {
	gather();
	keep_budget();
}

static int evict(int n) {
	int done = 0;
	gather();
	for (sv_slot *s; done < n && (s = take_coldest(false)); done++) sv_slot_unmap(s);
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
		sv_slot_unmap(s);
	}
}

bool sv_image_has_free(sv_image *image) {
	pthread_mutex_lock(&lock);
	bool has = image->free != NULL;
	pthread_mutex_unlock(&lock);
	return has;
}

// Takes the slot from its instance; whether all its writes were within one call, of this thread.
static bool take_back(sv_slot *s) {
	bool one_call = s->inst && s->inst->one_call;
	s->inst = NULL;
	return one_call;
}

bool sv_slot_renew(sv_slot *s) {
	bool one_call = take_back(s);
	if (s->size != s->image->size) return false;
	s->clean = sv_slot_reset(s, one_call);
	s->broken = !s->clean;
	return s->clean;
}

int64_t sv_slot_resident(const sv_slot *s) { return s->resident; }

bool sv_slots_have_room(int64_t pages) {
	return (sv_sum(SV_RESIDENT) + pages) * SV_PAGE <= sv_cfg.resident_budget;
}

static void slot_release(sv_slot *s) {
	bool one_call = take_back(s);
	if (s->broken || (!s->clean && !sv_slot_reset(s, one_call))) {
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
	if (!s) s = sv_slot_make(image);
	// Addresses can run out before maps do: what other images' free slots have is given back.
	// Boxes are not: a guest's stack is no place to end others from.
	if (!s && evict(16) > 0) s = sv_slot_make(image);
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
