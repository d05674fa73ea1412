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

// The boxes that a processor used last, the latest first, and the programs that started on it last.
static struct shelf {
	pthread_mutex_t lock;
	sv_box *box[SV_BOXES];
	const sv_prog *started[OFTEN];
	unsigned next;                 // of these
} __attribute__((aligned(128))) shelf[SV_PROCESSORS] = {[0 ... SV_PROCESSORS - 1] = {.lock = PTHREAD_ADAPTIVE_MUTEX_INITIALIZER_NP}};

static void remove_at(struct shelf *h, int i) {
	memmove(&h->box[i], &h->box[i + 1], (size_t)(SV_BOXES - 1 - i) * sizeof h->box[0]);
	h->box[SV_BOXES - 1] = NULL;
}

sv_box *sv_box_new(sv_prog *prog, bool often) {
	sv_box *b = calloc(1, sizeof *b);
	if (!b) return NULL;
	b->prog = prog, b->often = often;
	atomic_fetch_add(&prog->refs, 1);
	return b;
}

void sv_box_free(sv_box *b) {
	if (b->store) wasmtime_store_delete(b->store); // gives slot and stack back
	free(b->globals);
	free(b->entries);
	sv_prog_unref(b->prog);
	free(b);
}

// Notes a start of prog, and whether it was among the last few that started on this processor. (lock held)
static bool note_start(struct shelf *h, const sv_prog *prog) {
	bool often = false;
	for (int i = 0; i < OFTEN && !often; i++) often = h->started[i] == prog;
	h->started[h->next] = prog;
	h->next = (h->next + 1) % OFTEN;
	return often;
}

// What is on the shelves: counted under their locks.
static void count(const sv_box *b, int by) {
	sv_tally(SV_KEPT, by);
	sv_tally(SV_RESIDENT, by * sv_slot_resident(b->slot));
}

// Takes the latest of prog, or of all, off the shelf. (lock held)
static sv_box *take(struct shelf *h, const sv_prog *prog) {
	for (int i = 0; i < SV_BOXES && h->box[i]; i++) {
		sv_box *b = h->box[i];
		if (prog && b->prog != prog) continue;
		remove_at(h, i);
		count(b, -1);
		return b;
	}
	return NULL;
}

sv_box *sv_box_take(sv_prog *prog, bool *often) {
	*often = false;
	if (!atomic_load_explicit(&prog->renewable, memory_order_relaxed)) return NULL;
	struct shelf *h = &shelf[sv_processor()];
	pthread_mutex_lock(&h->lock);
	sv_box *b = take(h, prog);
	*often = note_start(h, prog);
	pthread_mutex_unlock(&h->lock);
	if (b) b->room = sv_slot_resident(b->slot);
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
	pthread_mutex_lock(&h->lock);
	sv_box *b = take(h, prog);
	pthread_mutex_unlock(&h->lock);
	return b;
}

// Another program may come to be where prog was: what is noted of prog is not its.
static void forget_starts(struct shelf *h, const sv_prog *prog) {
	pthread_mutex_lock(&h->lock);
	for (int i = 0; i < OFTEN; i++)
		if (h->started[i] == prog) h->started[i] = NULL;
	pthread_mutex_unlock(&h->lock);
}

void sv_boxes_drop(const sv_prog *prog) {
	for (struct shelf *h = shelf; h < shelf + SV_PROCESSORS; h++) {
		for (sv_box *b; (b = pull(h, prog));) sv_box_free(b);
		if (prog) forget_starts(h, prog);
	}
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

// What it gave up as it was taken it may have again: to ask costs a line that other processors write to.
static bool has_room(const sv_box *b) {
	int64_t pages = sv_slot_resident(b->slot);
	return pages <= b->room || sv_slots_have_room(pages);
}

void sv_box_end(sv_box *b, bool whole) {
	bool keep = whole && b->often && atomic_load_explicit(&b->prog->renewable, memory_order_relaxed);
	if (!keep || !renew(b) || !has_room(b) || !put(b)) sv_box_free(b);
}
