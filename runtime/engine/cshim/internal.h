// What the C files of this room share.
//
// The hazards, once:
//   - Host calls run on the guest's fiber stack. They must never call Go ("morestack on g0"), never
//     block for long, and use little stack.
//   - Memory and stacks are handed to wasmtime through its public creators. What comes back in a
//     finalizer was a tenant's: a slot is reset, and checked, before anyone else gets it.
//   - sv_current is set only while sv_poll runs. The memory creator trusts nothing else.
#ifndef SELVAGE_INTERNAL_H
#define SELVAGE_INTERNAL_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "shim.h"
#include "wt.h"

#define SV_PAGE 4096
#define SV_RESERVATION ((size_t)4 << 30)
#define SV_GUARD ((size_t)32 << 20)

// ---- engine.c

extern wasm_engine_t *sv_engine;
extern sv_config sv_cfg;
// The instance being polled on this thread.
extern _Thread_local sv_inst *sv_current;
// What changes seldom.
extern struct sv_counters {
	_Atomic int64_t free_slots, retired_slots, free_stacks, images, codes;
	_Atomic uint64_t ticks;
} sv_count;
char *sv_error_take(wasmtime_error_t *error); // frees the error
char *sv_errno(const char *what);
// Memory maps, estimated from above: a slot is its image, what was grown and the rest of the
// reservation; a stack has its guard.
enum { SV_MAPS_CODE = 3, SV_MAPS_SLOT = 3, SV_MAPS_STACK = 2, SV_MAPS_INSTANCE = SV_MAPS_SLOT + SV_MAPS_STACK };
int64_t sv_maps(void);
// The processor this thread runs on, in [0, sv_processors): a hint, for what is kept near one.
enum { SV_PROCESSORS = 64 };
extern unsigned sv_processors; // 1 to SV_PROCESSORS
static inline unsigned sv_processor(void) {
	int cpu = sched_getcpu();
	return cpu < 0 ? 0 : (unsigned)cpu % sv_processors;
}

// What changes with each instance is counted where that happens: a dozen writes a start to lines
// that all processors write to would have them wait for each other. A tally alone means nothing,
// and may be negative: what is taken on one processor is given back on another.
enum sv_tally {
	SV_INSTANCES, SV_KEPT, SV_RESIDENT, // alive; boxes kept; pages of free slots and of boxes kept
	SV_STARTS, SV_RENEWED, SV_RESETS, SV_KNOWN_RESETS, SV_PAGES_COPIED, SV_PAGES_TRIMMED, SV_PAGES_FOLDED, SV_REMAPS,
	SV_TALLIES
};
extern struct sv_tallies { _Atomic int64_t n[SV_TALLIES]; } __attribute__((aligned(128))) sv_tallied[SV_PROCESSORS];
static inline void sv_tally(enum sv_tally what, int64_t by) {
	atomic_fetch_add_explicit(&sv_tallied[sv_processor()].n[what], by, memory_order_relaxed);
}
int64_t sv_sum(enum sv_tally what);
uint64_t sv_clock(int clock);
uint64_t sv_monotonic(void);

// ---- tick.c

char *sv_ticker_open(void);
void sv_ticker_close(void);
unsigned sv_tick_enter(void); // a guest runs from now on: it ticks
void sv_tick_leave(unsigned);  // takes what sv_tick_enter gave

// ---- slot.c

// Runs of pages of an image or a slot.
enum { SV_RUNS = 64 };
typedef struct sv_run { uint32_t page, count; } sv_run;
typedef struct sv_runs {
	uint32_t runs, pages; // runs above SV_RUNS: too many, and only the first are here
	sv_run run[SV_RUNS];
} sv_runs;

typedef struct sv_slot sv_slot;
struct sv_slot {
	sv_slot *image_next, *image_prev; // free slots of the image, warmest first
	sv_slot *lru_next, *lru_prev;     // all free slots, warmest first
	sv_image *image;
	sv_inst *inst;    // while in use
	uint8_t *mapping; // guard, reservation, guard
	uint8_t *base;
	size_t size;     // of the memory now
	size_t high;     // the largest size it ever had: what an audit looks at
	int64_t resident; // pages of its own, as of the last reset
	sv_run *own;      // those pages, if own_known
	uint32_t own_runs, own_room;
	bool own_known;
	bool broken;      // a reset failed: never lent again
	bool clean;       // it was reset, and not lent since
};

sv_slot *sv_slot_make(sv_image *image); // NULL: no room
bool sv_slot_map(sv_slot *s);           // anew, as its image
void sv_slot_unmap(sv_slot *s);         // and frees it
wasmtime_error_t *sv_memory_new(void *env, const wasm_memorytype_t *ty, size_t minimum, size_t maximum, size_t reserved, size_t guard,
	wasmtime_linear_memory_t *out);
// Makes a slot that was used equal to its image again, in place, for the same program's next instance;
// false if it grew or cannot be reset.
bool sv_slot_renew(sv_slot *s);
int64_t sv_slot_resident(const sv_slot *s); // pages of its own, as of its last reset
bool sv_slots_have_room(int64_t pages); // in the budget
// Makes it in's memory.
void sv_slot_lend(sv_slot *s, sv_inst *in);
// Makes the slots that processors keep aside ordinary free ones, within the budget.
void sv_slots_settle(void);
// Unmaps up to n of the coldest free slots; returns how many.
int sv_slots_evict(int n);
bool sv_image_has_free(sv_image *image);

// ---- reset.c

char *sv_resets_open(bool remap_only);
// Makes s equal to its image, of its image's size; one_call: nothing but this thread wrote to it since
// its last reset, within the present call of this library.
bool sv_slot_reset(sv_slot *s, bool one_call);
// Lists pages of a slot in use that are in memory and its own, upwards; not all of them if there are many.
size_t sv_slot_own_pages(sv_slot *s, uint32_t *pages, size_t most);

// ---- fold.c

// Gives back the pages of a waiting guest of which few lines differ from the image's, and keeps those lines.
void sv_fold(sv_inst *in);
// Forgets what was kept: the memory goes.
void sv_fold_drop(sv_inst *in);

// ---- trim.c

bool sv_all_zero(const uint8_t *p, size_t n);
void sv_give_back(uint8_t *from, uint8_t *to); // pages: they need not go
// Once for each instance, when it first waits and many others are alive.
void sv_trim(sv_inst *in);

// ---- image.c

enum { SV_WARM_PAGES = 128 }; // of one instance: with more, none are kept

struct sv_image {
	_Atomic int refs;
	int fd;
	size_t size;
	const uint8_t *bytes;    // the whole image, read only
	uint64_t *nonzero;       // one bit a page: has any byte set
	sv_slot *free, *free_last; // under the slots' lock
	sv_runs warm;              // of the first instance that wrote no more than that; set once
	atomic_int warm_is;        // 0 unknown, 1 being set, 2 set
	bool sealed;
};

void sv_image_ref(sv_image *image);
static inline bool sv_image_page_is_zero(const sv_image *image, size_t page) {
	return !(image->nonzero[page / 64] >> (page % 64) & 1);
}
// slot.c: gives every free slot of a dying image back to the kernel.
void sv_slots_drop(sv_image *image);

// ---- stack.c

wasmtime_error_t *sv_stack_new(void *env, size_t size, bool zeroed, wasmtime_stack_memory_t *out);
typedef struct sv_stack sv_stack;
// Whether more of it was used than a stack keeps.
bool sv_stack_deep(const sv_stack *s);

// ---- link.c

typedef enum { SV_OK, SV_WAIT, SV_DIE } sv_verdict;
typedef struct sv_builtin {
	const char *signature;
	// Sets *result, or says that the call must wait, or that the guest dies (sv_die).
	sv_verdict (*call)(sv_inst *in, const uint64_t *args, uint64_t *result);
	// After the wait: turns Go's answer into the guest's. May be NULL.
	int64_t (*finish)(sv_inst *in, const uint64_t *args, int64_t answer);
	bool suspends;
	uint32_t asks; // SV_ASKED_..., noted with every call
} sv_builtin;
const sv_builtin *sv_builtin_get(uint32_t id);
const sv_builtin *sv_builtin_native(uint32_t id);
const sv_builtin *sv_builtin_wasip1(uint32_t id);

typedef struct sv_import {
	char *name; // "module.name", for messages
	const sv_builtin *builtin;
	uint32_t op;
	uint8_t nparams, nresults;
	uint8_t params[SV_MAX_ARGS], result;
} sv_import;

struct sv_linker {
	wasmtime_linker_t *linker;
};

// ---- code.c

struct sv_code {
	wasmtime_module_t *module;
};

typedef struct sv_name { char *text; size_t len; } sv_name;
typedef struct sv_preset { sv_name name; wasmtime_val_t value; } sv_preset;
typedef struct sv_blob { uint8_t *data; size_t len; uint32_t count; } sv_blob;

struct sv_prog {
	_Atomic int refs; // the handle and each box
	wasmtime_instance_pre_t *pre;
	sv_image *image;
	uint64_t memory_min, memory_max; // as the code declares them
	sv_name *entries;
	size_t nentries;
	sv_preset *globals;
	size_t nglobals;
	// Whether boxes are renewed. Then these are all mutable globals, of kind SV_ZERO where the image has no value.
	atomic_bool renewable, closed;
	sv_preset *mutables;
	size_t nmutables;
	sv_blob blobs[SV_BLOBS];
};
enum { SV_ZERO = 255 };
void sv_prog_unref(sv_prog *prog);

// ---- box.c

typedef struct sv_zeroed { void *at; size_t size; } sv_zeroed;
enum { SV_ZEROED = 4 }; // as many as there may be tables

typedef struct sv_box {
	sv_prog *prog;
	wasmtime_store_t *store;
	wasmtime_context_t *ctx;
	wasmtime_instance_t instance;
	sv_slot *slot;
	sv_stack *stack;             // that the store keeps between calls
	sv_zeroed zeroed[SV_ZEROED]; // what was calloc'ed as it was made: its tables, if they are large
	uint32_t nzeroed;
	uint32_t instances;           // that it has served
	bool often;                   // its program starts often: it is worth keeping
	int64_t room;                 // pages that it was counted with as it was last kept
	wasmtime_global_t *globals;   // prog->mutables, once looked up
	wasmtime_extern_t *entries;   // prog->entries, once looked up
} sv_box;
enum { SV_BOXES = 16 }; // kept for each processor, at most

sv_box *sv_box_new(sv_prog *prog, bool often);
void sv_box_free(sv_box *b);
// One that was renewed for prog, or NULL.
sv_box *sv_box_take(sv_prog *prog, bool *often);
// Keeps a box for another instance, or frees it. whole: its guest came to its end.
void sv_box_end(sv_box *b, bool whole);
// Frees what is kept for prog, or for all.
void sv_boxes_drop(const sv_prog *prog);

// ---- inst.c

enum { SV_CLOSED = 255 };

struct sv_inst {
	sv_view v;
	sv_prog *prog;
	sv_box *box;
	wasmtime_call_future_t *future;
	wasmtime_extern_t entry; // outlives the call's future, which keeps a pointer to it
	wasm_trap_t *trap;
	wasmtime_error_t *error;
	size_t step; // 0: instantiate; then one for each entry
	bool has_body, no_calls, failed;
	bool one_call; // it began and ended within one call of sv_start
	bool trimmed;
	struct sv_fold *fold; // what is kept of pages that are given back; NULL: nothing
	bool timed; // polls are charged by the thread's own clock
	uint8_t calm; // short polls since one that was not, while timed
	uint64_t most_untimed; // ns: a poll that takes longer is not charged by the monotonic clock alone
	uint32_t own_code; // set by sv_die
	uint64_t memory_limit, cpu_limit;
	uint64_t poll_from, tick_spent; // when the present poll began, and its charge as of the tick, ns
	uint32_t head_limit, log_limit, log_used, log_cap;

	const sv_import *waiting;
	wasmtime_val_t *wait_result;
	wasm_trap_t **wait_trap;

	uint64_t poll_args[4], poll_wait; // of a poll_oneoff that waits
	// Descriptors 0 to 2 of preview 1, as the guest has changed them: which stream each is now
	// (0: its own, n: stream n-1, SV_CLOSED), and the rights it gave up.
	struct { uint8_t is; uint32_t gone; } fds[3];

	uint8_t *request;
	size_t request_len, request_cap;
	size_t head_cap;
};

static_assert(offsetof(struct sv_inst, v) == 0, "Go finds the view at the instance's address");

// Makes the call trap with a code of our own.
sv_verdict sv_die(sv_inst *in, uint32_t code, const char *message);
// The guest's bytes, or NULL when they are not all inside its memory.
static inline uint8_t *sv_at(const sv_inst *in, uint64_t ptr, uint64_t len) {
	if (ptr > in->v.memory_size || len > in->v.memory_size - ptr) return NULL;
	return in->v.memory ? in->v.memory + ptr : NULL;
}
// Appends to the log, or counts it as dropped. stream: 0 the log call, 1 stdout, 2 stderr.
void sv_log(sv_inst *in, uint8_t stream, int32_t level, const uint8_t *text, size_t n);
bool sv_random(uint8_t *p, size_t n);
// trap.c: fills the view's trap from in->trap or in->error, and frees those.
void sv_trap_describe(sv_inst *in);

#endif
