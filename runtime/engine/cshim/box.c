// Boxes: a store with its one instance, slot and stack. A box whose guest came to its
// end may be renewed for the next instance of the program, where that cannot be told from
// a new one:
//   - No instruction of the code changes a table or drops a segment (image.Split has walked
//     them all, and says so), and its memory did not grow. So all that a guest can have
//     changed is its memory's bytes and its mutable globals of number types.
//   - The memory is made equal to the image, as every used slot is; each mutable global
//     is set to what a new instance gets. Whatever of this fails, the box is not kept.
//   - A guest that failed, in whatever way, leaves none.
// What is kept holds nothing of a tenant's, and serves no other program. Only programs that
// start often are worth it: to renew and keep, and then end, what is not used again costs more than ending it.
#include "internal.h"

// A box is given up after so many instances, with whatever gathers in a store or on a stack
// unseen; and one with larger tables is not kept. Its slot's pages count against the budget of free slots.
enum { MOST_INSTANCES = 64, MOST_TABLES = 1 << 20, OFTEN = 4 * SV_BOXES };

// The boxes that a processor used last, the latest first.
static struct shelf {
	pthread_mutex_t lock;
	sv_box *box[SV_BOXES];
} __attribute__((aligned(128))) shelf[SV_PROCESSORS] = {[0 ... SV_PROCESSORS - 1] = {.lock = PTHREAD_ADAPTIVE_MUTEX_INITIALIZER_NP}};

static void remove_at(struct shelf *h, int i) {
	memmove(&h->box[i], &h->box[i + 1], (size_t)(SV_BOXES - 1 - i) * sizeof h->box[0]);
	h->box[SV_BOXES - 1] = NULL;
}

sv_box *sv_box_new(sv_prog *prog) {
	sv_box *b = calloc(1, sizeof *b);
	if (b) b->prog = prog, atomic_fetch_add(&prog->refs, 1);
	return b;
}

void sv_box_free(sv_box *b) {
	if (b->store) wasmtime_store_delete(b->store); // gives slot and stack back
	free(b->globals);
	free(b->entries);
	sv_prog_unref(b->prog);
	free(b);
}

// Notes a start of prog: often, if its last was among the last few of all.
static void note_start(sv_prog *prog) {
	uint64_t now = atomic_load_explicit(&sv_count.starts, memory_order_relaxed) + 1;
	uint64_t last = atomic_exchange_explicit(&prog->started, now, memory_order_relaxed);
	atomic_store_explicit(&prog->often, last && now - last <= OFTEN, memory_order_relaxed);
}

// What is on the shelves: counted under their locks.
static void count(const sv_box *b, int by) {
	atomic_fetch_add_explicit(&sv_count.boxes, by, memory_order_relaxed);
	atomic_fetch_add_explicit(&sv_count.resident_pages, by * sv_slot_resident(b->slot), memory_order_relaxed);
}

sv_box *sv_box_take(sv_prog *prog) {
	if (!atomic_load_explicit(&prog->renewable, memory_order_relaxed)) return NULL;
	note_start(prog);
	struct shelf *h = &shelf[sv_processor()];
	sv_box *b = NULL;
	pthread_mutex_lock(&h->lock);
	for (int i = 0; i < SV_BOXES && h->box[i] && !b; i++) {
		if (h->box[i]->prog != prog) continue;
		b = h->box[i];
		remove_at(h, i);
		count(b, -1);
	}
	pthread_mutex_unlock(&h->lock);
	return b;
}

// Puts b on its processor's shelf; false if its program is closed.
static bool put(sv_box *b) {
	struct shelf *h = &shelf[sv_processor()];
	pthread_mutex_lock(&h->lock);
	// The program is closed before its boxes are gathered under this lock: none comes after.
	bool open = !atomic_load(&b->prog->closed);
	sv_box *last = NULL;
	if (open) {
		last = h->box[SV_BOXES - 1];
		memmove(&h->box[1], &h->box[0], (SV_BOXES - 1) * sizeof h->box[0]);
		h->box[0] = b;
		count(b, 1);
		if (last) count(last, -1);
	}
	pthread_mutex_unlock(&h->lock);
	if (last) sv_box_free(last);
	return open;
}

static sv_box *pull(struct shelf *h, const sv_prog *prog) {
	sv_box *b = NULL;
	pthread_mutex_lock(&h->lock);
	for (int i = 0; i < SV_BOXES && h->box[i] && !b; i++) {
		if (prog && h->box[i]->prog != prog) continue;
		b = h->box[i];
		remove_at(h, i);
		count(b, -1);
	}
	pthread_mutex_unlock(&h->lock);
	return b;
}

void sv_boxes_drop(const sv_prog *prog) {
	for (struct shelf *h = shelf; h < shelf + SV_PROCESSORS; h++)
		for (sv_box *b; (b = pull(h, prog));) sv_box_free(b);
}

// ---- renewal

static bool find(sv_box *b, const sv_name *name, uint8_t kind, wasmtime_extern_t *out) {
	return wasmtime_instance_export_get(b->ctx, &b->instance, name->text, name->len, out) && out->kind == kind;
}

// Looks up, once, what later instances need.
static bool look_up(sv_box *b) {
	const sv_prog *prog = b->prog;
	if (b->entries) return true;
	b->globals = calloc(prog->nmutables + 1, sizeof *b->globals);
	wasmtime_extern_t *entries = calloc(prog->nentries + 1, sizeof *entries);
	bool ok = b->globals && entries;
	for (size_t i = 0; ok && i < prog->nentries; i++) ok = find(b, &prog->entries[i], WASMTIME_EXTERN_FUNC, &entries[i]);
	for (size_t i = 0; ok && i < prog->nmutables; i++) {
		wasmtime_extern_t global;
		ok = find(b, &prog->mutables[i].name, WASMTIME_EXTERN_GLOBAL, &global);
		if (ok) b->globals[i] = global.of.global;
	}
	if (!ok) free(entries);
	else b->entries = entries;
	return ok;
}

// Sets every mutable global to what it is in a new instance: the image's value, or zero.
static bool reset_globals(sv_box *b) {
	const sv_prog *prog = b->prog;
	for (size_t i = 0; i < prog->nmutables; i++) {
		wasmtime_val_t value = prog->mutables[i].value;
		if (value.kind == SV_ZERO) {
			wasmtime_global_get(b->ctx, &b->globals[i], &value);
			if (value.kind > WASMTIME_F64) return false;
			memset(&value.of, 0, sizeof value.of);
		}
		wasmtime_error_t *error = wasmtime_global_set(b->ctx, &b->globals[i], &value);
		if (!error) continue;
		wasmtime_error_delete(error);
		return false;
	}
	return true;
}

static size_t tables(const sv_box *b) {
	size_t n = 0;
	for (uint32_t i = 0; i < b->nzeroed; i++) n += b->zeroed[i].size;
	return n;
}

static bool renew(sv_box *b) {
	if (++b->instances >= MOST_INSTANCES || !b->slot || !b->stack || sv_stack_deep(b->stack) || tables(b) > MOST_TABLES) return false;
	return look_up(b) && reset_globals(b) && sv_slot_renew(b->slot);
}

void sv_box_end(sv_box *b, bool whole) {
	const sv_prog *prog = b->prog;
	bool keep = whole && atomic_load_explicit(&prog->renewable, memory_order_relaxed) && atomic_load_explicit(&prog->often, memory_order_relaxed);
	if (!keep || !renew(b) || !sv_slots_have_room(sv_slot_resident(b->slot)) || !put(b)) sv_box_free(b);
}
