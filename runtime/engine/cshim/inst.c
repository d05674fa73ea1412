// Instances: one store, one fiber, one slot; polled from Go.
#include "internal.h"

#include <time.h>

#define DEADLINE_TICKS 1
#define KEEP_BUFFER ((size_t)64 << 10) // an instance with a larger one is not kept

// Makes a kept instance as good as new: its buffers are reused, their contents never read.
static sv_inst *inst_renew(sv_inst *in) {
	const sv_inst kept = *in;
	memset(in, 0, sizeof *in);
	in->request = kept.request, in->request_cap = kept.request_cap;
	in->v.head = kept.v.head, in->head_cap = kept.head_cap;
	in->v.log = kept.v.log, in->log_cap = kept.log_cap;
	in->v.body = kept.v.body;
	return in;
}

void sv_inst_drop(sv_inst *in) {
	free(in->request);
	free(in->v.head);
	free(in->v.log);
	free(in->v.body);
	free(in);
}

// ---- processor time

// What a poll timed by the monotonic clock is charged without question: about the
// ticks it can have run without yielding. What is more on that clock may be time in
// which the kernel ran something else on this processor, or one instruction that
// took long, as memory.fill can. A mark, of both clocks, is made on every thread that
// polls, at most half as old: of what was used since, all that cannot have been before the poll was the poll's.
#define SHORT_POLL 2000000
static _Thread_local struct { uint64_t cpu, at; } mark;

// An instance of which one poll was longer is charged by the thread's own clock. After
// so many polls in a row that were shorter than this it is trusted again, and less: a
// guest that computes for long and then calls the host often pays no system calls for each.
#define CALM_POLL 100000
#define CALM_POLLS 16

static void mark_thread(uint64_t now, uint64_t most) {
	if (now - mark.at <= most / 2) return;
	mark.at = now;
	mark.cpu = sv_clock(CLOCK_THREAD_CPUTIME_ID);
}

// What is charged to a poll that began then and took so long, longer than most.
static uint64_t surely_spent(uint64_t from, uint64_t spent, uint64_t most) {
	uint64_t used = sv_clock(CLOCK_THREAD_CPUTIME_ID) - mark.cpu, before = from - mark.at;
	uint64_t sure = used > before + most ? used - before : most;
	return sure < spent ? sure : spent;
}

static int clock_of(const sv_inst *in) { return in->timed ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC; }

// What the present poll is charged so far.
static uint64_t spent(const sv_inst *in) {
	uint64_t ns = sv_clock(clock_of(in)) - in->poll_from;
	return in->timed || ns <= in->most_untimed ? ns : surely_spent(in->poll_from, ns, in->most_untimed);
}

// Decides how the next poll is charged after one that used so much.
static void judge(sv_inst *in, uint64_t used, bool yields) {
	if (!in->timed) {
		in->timed = yields || used >= in->most_untimed;
		in->calm = 0;
		return;
	}
	in->calm = yields || used >= CALM_POLL ? 0 : in->calm + 1;
	if (in->calm < CALM_POLLS) return;
	in->timed = false;
	in->most_untimed = CALM_POLL;
}

// Called on the guest's stack, so that the error is a trap with the guest's backtrace.
static wasmtime_error_t *on_tick(wasmtime_context_t *ctx, void *env, uint64_t *ticks, wasmtime_update_deadline_kind_t *kind) {
	(void)ctx, (void)env;
	sv_inst *in = sv_current;
	if (!in) return wasmtime_error_new("polled by nobody");
	in->tick_spent = spent(in);
	if (in->v.stop || (in->cpu_limit && in->v.cpu_ns + in->tick_spent > in->cpu_limit)) {
		in->own_code = WASMTIME_TRAP_CODE_INTERRUPT;
		return wasmtime_error_new("stopped by the host");
	}
	*ticks = DEADLINE_TICKS;
	*kind = WASMTIME_UPDATE_DEADLINE_YIELD;
	return NULL;
}

// ---- start

// Whether another instance fits below the limit on memory maps, after giving
// back cold slots if need be. A free slot or stack that it will reuse is
// already counted.
static bool has_room(sv_image *image) {
	int64_t more = SV_MAPS_INSTANCE;
	if (sv_maps() + more <= sv_cfg.max_maps) return true;
	if (sv_image_has_free(image)) more -= SV_MAPS_SLOT;
	if (atomic_load(&sv_count.free_stacks) > 0) more -= SV_MAPS_STACK;
	if (sv_maps() + more <= sv_cfg.max_maps) return true;
	return sv_slots_evict(16) > 0 && sv_maps() + SV_MAPS_INSTANCE <= sv_cfg.max_maps;
}

static bool request_copy(sv_inst *in, const uint8_t *head, size_t n) {
	if (n > in->request_cap) {
		uint8_t *more = realloc(in->request, n);
		if (!more) return false;
		in->request = more;
		in->request_cap = n;
	}
	if (n) memcpy(in->request, head, n);
	in->request_len = n;
	return true;
}

static bool box_open(sv_inst *in, bool often) {
	sv_box *b = in->box = sv_box_new(in->prog, often);
	if (!b) return false;
	b->store = wasmtime_store_new(sv_engine, NULL, NULL);
	b->ctx = wasmtime_store_context(b->store);
	// All five, always: the C API's default is no limit. The memory limit proper is memory_grow's
	// (slot.c), which can tell that a guest was refused; this one stands behind it.
	wasmtime_store_limiter(b->store, (int64_t)SV_RESERVATION, sv_cfg.table_elements, 1, 4, 1);
	wasmtime_context_set_epoch_deadline(b->ctx, DEADLINE_TICKS);
	wasmtime_store_epoch_deadline_callback(b->store, on_tick, NULL, NULL);
	return true;
}

// Puts in into a renewed box: it stands where a new one stands once it is instantiated.
static void box_enter(sv_inst *in, sv_box *b) {
	in->box = b;
	in->step = 1;
	sv_slot_lend(b->slot, in);
	wasmtime_context_set_epoch_deadline(b->ctx, DEADLINE_TICKS);
	sv_tally(SV_RENEWED, 1);
}

sv_started sv_start(sv_prog *prog, sv_inst *spare, const uint8_t *head, size_t head_len, uint32_t flags, int64_t memory_limit,
	uint32_t log_limit, uint32_t head_limit, uint64_t cpu_limit) {
	sv_started out = {.in = spare, .event = SV_TOO_LARGE};
	if (memory_limit < 0 || prog->image->size > (uint64_t)memory_limit) return out;
	out.event = SV_NO_ROOM;
	bool often;
	sv_box *renewed = sv_box_take(prog, &often);
	if (!renewed && !has_room(prog->image)) return out;
	out.event = SV_NO_MEMORY;
	sv_inst *in = out.in = spare ? inst_renew(spare) : calloc(1, sizeof *in);
	if (!in || !request_copy(in, head, head_len)) {
		if (renewed) sv_box_free(renewed);
		return out;
	}
	in->has_body = flags & SV_HAS_BODY;
	in->no_calls = flags & SV_NO_CALLS;
	in->memory_limit = (uint64_t)memory_limit;
	in->log_limit = log_limit;
	in->head_limit = head_limit;
	in->cpu_limit = cpu_limit;
	in->most_untimed = SHORT_POLL;
	in->prog = prog;
	if (renewed) box_enter(in, renewed);
	else if (!box_open(in, often)) return out;
	sv_tally(SV_INSTANCES, 1);
	sv_tally(SV_STARTS, 1);
	out.event = flags & SV_POLL ? sv_poll(in) : SV_STARTED;
	in->one_call = out.event == SV_DONE;
	if (in->one_call) sv_inst_end(in);
	return out;
}

// ---- poll

static int fail(sv_inst *in) {
	in->failed = true;
	sv_trap_describe(in);
	return SV_FAILED;
}

static int fail_with(sv_inst *in, const char *message) {
	in->error = wasmtime_error_new(message);
	in->own_code = SV_TRAP_START;
	return fail(in);
}

static bool find(sv_inst *in, const sv_name *name, uint8_t kind, wasmtime_extern_t *out) {
	return wasmtime_instance_export_get(in->box->ctx, &in->box->instance, name->text, name->len, out) && out->kind == kind;
}

static bool set_globals(sv_inst *in) {
	const sv_prog *prog = in->prog;
	for (size_t i = 0; i < prog->nglobals; i++) {
		wasmtime_extern_t global;
		if (!find(in, &prog->globals[i].name, WASMTIME_EXTERN_GLOBAL, &global)) return false;
		in->error = wasmtime_global_set(in->box->ctx, &global.of.global, &prog->globals[i].value);
		if (in->error) return false;
	}
	return true;
}

enum next { NEXT_CALL, NEXT_END, NEXT_BROKEN };

// Makes the future of the present step.
static enum next next_call(sv_inst *in) {
	const sv_prog *prog = in->prog;
	sv_box *b = in->box;
	if (in->step == 0) {
		in->future = wasmtime_instance_pre_instantiate_async(prog->pre, b->ctx, &b->instance, &in->trap, &in->error);
		return NEXT_CALL;
	}
	if (in->step > prog->nentries) return NEXT_END;
	if (b->entries) in->entry = b->entries[in->step - 1];
	else if (!find(in, &prog->entries[in->step - 1], WASMTIME_EXTERN_FUNC, &in->entry)) return NEXT_BROKEN;
	in->future = wasmtime_func_call_async(b->ctx, &in->entry.of.func, NULL, 0, NULL, 0, &in->trap, &in->error);
	return NEXT_CALL;
}

static int advance(sv_inst *in) {
	for (;;) {
		if (!in->future) {
			switch (next_call(in)) {
			case NEXT_END: return SV_DONE;
			case NEXT_BROKEN: return fail_with(in, "the code lacks an entry of the program");
			case NEXT_CALL: break;
			}
		}
		if (!wasmtime_call_future_poll(in->future)) return in->waiting ? SV_CALL : SV_YIELD;
		wasmtime_call_future_delete(in->future);
		in->future = NULL;
		if (in->trap || in->error) return fail(in);
		if (in->step == 0 && !set_globals(in)) return in->error ? fail(in) : fail_with(in, "the code lacks a global of its image");
		in->step++;
	}
}

// A short poll is charged by the monotonic clock, which costs 20 ns where the
// thread's own clock costs most of a microsecond. After one that was not short,
// that is worth its system call: so little is forgiven, and seldom.
int sv_poll(sv_inst *in) {
	if (in->failed) return SV_FAILED;
	in->poll_from = sv_clock(clock_of(in));
	if (!in->timed) mark_thread(in->poll_from, in->most_untimed);
	if (in->fold) sv_unfold(in, 0, UINT64_MAX); // charged, as the fold was
	unsigned at = sv_tick_enter();
	sv_current = in;
	int event = advance(in);
	sv_current = NULL;
	sv_tick_leave(at);
	if (event == SV_CALL) sv_trim(in);
	// One that yields is charged what the tick has judged it by: it is over its limit there, or nowhere.
	uint64_t used = event == SV_YIELD ? in->tick_spent : spent(in);
	in->v.cpu_ns += used;
	judge(in, used, event == SV_YIELD);
	return event;
}

bool sv_inst_global(sv_inst *in, const char *name, size_t n, uint8_t *type, uint64_t *bits) {
	wasmtime_extern_t global;
	sv_name key = {.text = (char *)name, .len = n};
	if (in->step == 0 || !find(in, &key, WASMTIME_EXTERN_GLOBAL, &global)) return false;
	wasmtime_val_t value;
	wasmtime_global_get(in->box->ctx, &global.of.global, &value);
	if (value.kind > WASMTIME_F64) return false;
	*type = 0x7f - value.kind;
	*bits = value.kind == WASMTIME_I32 || value.kind == WASMTIME_F32 ? (uint32_t)value.of.i32 : (uint64_t)value.of.i64;
	return true;
}

void sv_inst_end(sv_inst *in) {
	if (in->v.ended) return;
	// Deleting a future that is not done unwinds its fiber, here and now.
	bool whole = !in->future && !in->failed && !in->no_calls && in->step > in->prog->nentries;
	if (in->future) wasmtime_call_future_delete(in->future);
	sv_fold_drop(in);
	sv_box_end(in->box, whole);
	in->box = NULL, in->prog = NULL; // the box held the program
	if (in->trap) wasm_trap_delete(in->trap);
	if (in->error) wasmtime_error_delete(in->error);
	free(in->v.trap_message);
	free(in->v.trap_trace);
	free(in->v.fail_message);
	in->v.trap_message = in->v.trap_trace = in->v.fail_message = NULL;
	in->v.memory = NULL; // its size stays, as a figure
	in->v.keep = in->request_cap <= KEEP_BUFFER && in->head_cap <= KEEP_BUFFER && in->log_cap <= KEEP_BUFFER;
	in->v.ended = true;
	sv_tally(SV_INSTANCES, -1);
}
