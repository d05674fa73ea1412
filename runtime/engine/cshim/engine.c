// The process's one engine: configuration, counters, compiling.
#include "internal.h"

#include <cpuid.h>
#include <errno.h>
#include <stdio.h>
#include <sys/sysinfo.h>
#include <time.h>

wasm_engine_t *sv_engine;
sv_config sv_cfg;
_Thread_local sv_inst *sv_current;
struct sv_counters sv_count;
struct sv_tallies sv_tallied[SV_PROCESSORS];
unsigned sv_processors = 1;

int64_t sv_sum(enum sv_tally what) {
	int64_t n = 0;
	for (unsigned i = 0; i < sv_processors; i++) n += atomic_load_explicit(&sv_tallied[i].n[what], memory_order_relaxed);
	return n;
}

char *sv_errno(const char *what) {
	char *s;
	return asprintf(&s, "%s: %s", what, strerror(errno)) < 0 ? strdup(what) : s;
}

char *sv_error_take(wasmtime_error_t *error) {
	wasm_byte_vec_t text;
	wasmtime_error_message(error, &text);
	char *s = strndup(text.data, text.size);
	wasm_byte_vec_delete(&text);
	wasmtime_error_delete(error);
	return s;
}

uint64_t sv_clock(int clock) {
	struct timespec t;
	clock_gettime(clock, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

// The guests' monotonic clock: it starts from the wall clock, so that it does not
// run backwards for a guest whose start-up was run elsewhere and kept as an image.
static uint64_t monotonic_origin;

uint64_t sv_monotonic(void) { return sv_clock(CLOCK_MONOTONIC) + monotonic_origin; }

static wasm_config_t *make_config(const sv_config *c) {
	wasm_config_t *w = wasm_config_new();
	wasmtime_config_async_support_set(w, true);
	wasmtime_config_epoch_interruption_set(w, true);
	wasmtime_config_max_wasm_stack_set(w, c->wasm_stack);
	wasmtime_config_async_stack_size_set(w, c->fiber_stack);
	wasmtime_config_consume_fuel_set(w, false);
	wasmtime_config_debug_info_set(w, false);
	wasmtime_config_strategy_set(w, WASMTIME_STRATEGY_CRANELIFT);
	wasmtime_config_cranelift_opt_level_set(w, c->quick_compilation ? WASMTIME_OPT_LEVEL_NONE : WASMTIME_OPT_LEVEL_SPEED);
	if (c->quick_compilation) // for tools: half of the time, and twice the code
		wasmtime_config_cranelift_flag_set(w, "regalloc_algorithm", "single_pass");
	wasmtime_config_parallel_compilation_set(w, c->parallel_compilation);
	wasmtime_config_signals_based_traps_set(w, c->signals_based_traps);
	wasmtime_config_memory_may_move_set(w, false);
	wasmtime_config_memory_init_cow_set(w, false); // images are ours
	wasmtime_config_memory_reservation_set(w, c->reservation_bytes);
	wasmtime_config_memory_guard_size_set(w, c->guard_bytes);
	wasmtime_config_wasm_bulk_memory_set(w, true);
	wasmtime_config_wasm_multi_value_set(w, true);
	wasmtime_config_wasm_reference_types_set(w, true);
	wasmtime_config_wasm_simd_set(w, true);
	wasmtime_config_wasm_relaxed_simd_set(w, c->relaxed_simd);
	wasmtime_config_wasm_threads_set(w, c->threads);
	wasmtime_config_wasm_memory64_set(w, c->memory64);
	wasmtime_config_wasm_multi_memory_set(w, c->multi_memory);
	wasmtime_config_wasm_tail_call_set(w, c->tail_call);
	wasmtime_config_wasm_gc_set(w, c->gc);
	wasmtime_config_wasm_function_references_set(w, c->function_references);
	wasmtime_config_wasm_exceptions_set(w, c->exceptions);
	wasmtime_config_wasm_stack_switching_set(w, false);
	wasmtime_config_wasm_wide_arithmetic_set(w, false);
	wasmtime_config_wasm_custom_page_sizes_set(w, false);
	wasmtime_config_wasm_component_model_set(w, c->component_model);
	wasmtime_memory_creator_t memories = {.new_memory = sv_memory_new};
	wasmtime_config_host_memory_creator_set(w, &memories);
	wasmtime_stack_creator_t stacks = {.new_stack = sv_stack_new};
	wasmtime_config_host_stack_creator_set(w, &stacks);
	return w;
}

char *sv_open(const sv_config *config) {
	sv_cfg = *config;
	// The slots and stacks that processors keep aside are not among the free slots and stacks that are counted.
	int n = get_nprocs_conf();
	sv_processors = n < 1 ? 1 : n < SV_PROCESSORS ? (unsigned)n : SV_PROCESSORS;
	sv_cfg.base_maps += SV_MAPS_INSTANCE * (int64_t)sv_processors;
	monotonic_origin = sv_clock(CLOCK_REALTIME) - sv_clock(CLOCK_MONOTONIC);
	char *failed = sv_resets_open(config->remap_only);
	if (failed) return failed;
	sv_engine = wasm_engine_new_with_config(make_config(config));
	if (!sv_engine) return strdup("wasmtime refused the configuration");
	if (wasmtime_engine_is_pulley(sv_engine)) return strdup("wasmtime would interpret on this processor; selvage needs x86-64");
	return sv_ticker_open();
}

void sv_close(void) {
	sv_ticker_close();
	sv_slots_evict(INT32_MAX);
	if (sv_engine) wasm_engine_delete(sv_engine);
	sv_engine = NULL;
}

int64_t sv_maps(void) {
	return sv_cfg.base_maps + SV_MAPS_INSTANCE * (sv_sum(SV_INSTANCES) + sv_sum(SV_KEPT)) +
		SV_MAPS_SLOT * (atomic_load(&sv_count.free_slots) + atomic_load(&sv_count.retired_slots)) +
		SV_MAPS_STACK * atomic_load(&sv_count.free_stacks) + atomic_load(&sv_count.images) + SV_MAPS_CODE * atomic_load(&sv_count.codes);
}

bool sv_room(int64_t more) {
	return sv_maps() + more <= sv_cfg.max_maps || (sv_slots_evict(16) > 0 && sv_maps() + more <= sv_cfg.max_maps);
}

void sv_read_stats(sv_stats *out) {
	sv_slots_settle();
	*out = (sv_stats){
		.kept = sv_sum(SV_KEPT),
		.instances = sv_sum(SV_INSTANCES),
		.free_slots = atomic_load(&sv_count.free_slots),
		.retired_slots = atomic_load(&sv_count.retired_slots),
		.resident_bytes = sv_sum(SV_RESIDENT) * SV_PAGE,
		.maps = sv_maps(),
		.max_maps = sv_cfg.max_maps,
		.starts = sv_sum(SV_STARTS),
		.renewed = sv_sum(SV_RENEWED),
		.resets = sv_sum(SV_RESETS), .known_resets = sv_sum(SV_KNOWN_RESETS),
		.pages_copied = sv_sum(SV_PAGES_COPIED),
		.pages_trimmed = sv_sum(SV_PAGES_TRIMMED), .pages_folded = sv_sum(SV_PAGES_FOLDED),
		.remaps = sv_sum(SV_REMAPS), .ticks = atomic_load(&sv_count.ticks),
	};
}

char *sv_validate(const uint8_t *wasm, size_t n) {
	wasmtime_error_t *error = wasmtime_module_validate(sv_engine, wasm, n);
	return error ? sv_error_take(error) : NULL;
}

char *sv_compile(const uint8_t *wasm, size_t n, uint8_t **artifact, size_t *artifact_len) {
	wasmtime_module_t *module;
	wasmtime_error_t *error = wasmtime_module_new(sv_engine, wasm, n, &module);
	if (error) return sv_error_take(error);
	wasm_byte_vec_t bytes;
	error = wasmtime_module_serialize(module, &bytes);
	wasmtime_module_delete(module);
	if (error) return sv_error_take(error);
	*artifact = malloc(bytes.size);
	if (*artifact) memcpy(*artifact, bytes.data, *artifact_len = bytes.size);
	wasm_byte_vec_delete(&bytes);
	return *artifact ? NULL : strdup("out of memory");
}

void sv_cpu_features(uint32_t out[6]) {
	uint32_t a, b, c, d;
	memset(out, 0, 6 * sizeof *out);
	if (__get_cpuid(1, &a, &b, &c, &d)) out[0] = c, out[1] = d;
	if (__get_cpuid_count(7, 0, &a, &b, &c, &d)) out[2] = b, out[3] = c, out[4] = d;
	if (__get_cpuid(0x80000001, &a, &b, &c, &d)) out[5] = c;
}
