// What Go calls. Every function that can fail returns NULL or a message that
// the caller frees. C keeps no Go pointer: bytes handed in are copied.
#ifndef SELVAGE_SHIM_H
#define SELVAGE_SHIM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SV_MAX_ARGS 9
#define SV_GATHER (16 << 10)
#define SV_MAX_RANDOM (1 << 20)

// What sv_poll reports.
enum { SV_DONE = 1, SV_FAILED, SV_YIELD, SV_CALL };

// Trap codes of our own making come after wasmtime's.
enum { SV_TRAP_POINTER = 64, SV_TRAP_EXIT, SV_TRAP_HOSTCALL, SV_TRAP_START, SV_TRAP_HOST, SV_TRAP_CAPACITY, SV_TRAP_OTHER };

// What a guest asked for that differs from run to run: bits of sv_view.asked.
enum { SV_ASKED_RANDOM = 1, SV_ASKED_TIME = 2, SV_ASKED_ENVIRONMENT = 4 };

// Flags of sv_start.
enum { SV_HAS_BODY = 1, SV_NO_CALLS = 2, SV_POLL = 4 };

typedef struct sv_code sv_code;
typedef struct sv_image sv_image;
typedef struct sv_linker sv_linker;
typedef struct sv_prog sv_prog;
typedef struct sv_inst sv_inst;

typedef struct sv_config {
	uint64_t wasm_stack;  // bytes a guest may recurse through
	uint64_t fiber_stack; // the whole stack; the rest is for host code
	uint64_t tick_ns;
	int64_t resident_budget; // bytes that free slots may keep
	int64_t table_elements;
	int64_t max_maps; // sv_start refuses above it
	int64_t base_maps; // of the process before the first instance
	bool remap_only;
	bool parallel_compilation;
	bool quick_compilation; // without optimization
	// The advisory table (SECURITY.md): engine.policy refuses other values.
	bool signals_based_traps, threads, memory64, gc, function_references, multi_memory, exceptions, tail_call, relaxed_simd, component_model;
	uint64_t guard_bytes, reservation_bytes;
} sv_config;

char *sv_open(const sv_config *config);
void sv_close(void);
bool sv_scanning(void);
// Whether to reset by scanning (if that is proven to work) or always by mapping anew.
void sv_set_scanning(bool on);
char *sv_validate(const uint8_t *wasm, size_t n);
char *sv_compile(const uint8_t *wasm, size_t n, uint8_t **artifact, size_t *artifact_len);
// The bits that say which instructions this processor has.
void sv_cpu_features(uint32_t out[6]);

typedef struct sv_stats {
	int64_t instances, kept, free_slots, retired_slots, resident_bytes, maps, max_maps;
	uint64_t starts, renewed, resets, known_resets, pages_copied, pages_trimmed, pages_folded, remaps, ticks;
} sv_stats;
void sv_read_stats(sv_stats *out);
// Whether so many more maps may be made, after giving back cold slots if need be.
bool sv_room(int64_t more);

char *sv_load(const uint8_t *artifact, size_t n, sv_code **out);
char *sv_load_file(const char *path, sv_code **out);
// Writes the imports and exports as records; the reader is code.go.
char *sv_code_describe(sv_code *code, uint8_t **out, size_t *n);
void sv_code_free(sv_code *code);

char *sv_image_new(uint64_t size, sv_image **out);
char *sv_image_write(sv_image *image, uint64_t offset, const uint8_t *data, size_t n);
char *sv_image_seal(sv_image *image);
void sv_image_free(sv_image *image);
// Compares every free slot of the image with it, grown parts too; returns how
// many were compared, or -1 with the message.
int64_t sv_image_audit(sv_image *image, char **message);

char *sv_linker_new(sv_linker **out);
char *sv_linker_define(sv_linker *linker, const char *module, size_t module_len, const char *name, size_t name_len,
	const uint8_t *params, size_t nparams, const uint8_t *results, size_t nresults, uint32_t op, uint32_t builtin);
void sv_linker_free(sv_linker *linker);
// "iiI:i" for (i32, i32, i64) -> i32; "*:i" for any parameters; NULL if there is no such builtin.
const char *sv_builtin_signature(uint32_t builtin);
bool sv_builtin_suspends(uint32_t builtin);

enum { SV_ENVIRONMENT, SV_ARGS, SV_ENVIRON, SV_BLOBS };
char *sv_prog_new(sv_code *code, sv_image *image, sv_linker *linker, uint64_t memory_min, uint64_t memory_max, sv_prog **out);
char *sv_prog_entry(sv_prog *prog, const char *name, size_t n);
char *sv_prog_global(sv_prog *prog, const char *name, size_t n, uint8_t type, uint64_t bits);
// One of all mutable globals of the code, of a program whose globals are set; then that its instances may be renewed.
char *sv_prog_mutable(sv_prog *prog, const char *name, size_t n);
void sv_prog_renewable(sv_prog *prog);
// count is the number of NUL-terminated strings in SV_ARGS and SV_ENVIRON.
char *sv_prog_blob(sv_prog *prog, int which, const uint8_t *data, size_t n, uint32_t count);
void sv_prog_free(sv_prog *prog);

// The part of an instance that Go reads and writes without a call. Pointers are
// valid until the next poll or free. Go touches it only between polls.
typedef struct sv_view {
	uint32_t op, nargs; // of SV_CALL
	uint64_t args[SV_MAX_ARGS];
	int64_t result; // the answer, once answered is set
	bool answered;
	uint32_t fail_code; // with answered: trap with this code and fail_message
	char *fail_message; // malloc'd; C frees it

	uint8_t *memory;
	uint64_t memory_size;
	bool folded; // before memory is touched: sv_unfold

	bool head_set, body_begun, sent;
	uint32_t second_heads, large_heads; // refused
	int32_t status;
	uint32_t head_len, body_len;
	uint8_t *head, *body;

	uint8_t *log; // records: see log.go
	uint32_t log_len, log_dropped;
	uint32_t log_open; // 1 + the offset of the record that may still grow; 0 for none

	uint64_t cpu_ns, host_calls, crossings;
	uint32_t asked;
	bool fds_changed; // of preview 1: what no image holds

	uint32_t trap_code; // of SV_FAILED
	int32_t exit_status;
	bool grow_refused;
	char *trap_message, *trap_trace;

	bool stop; // set by Go: trap at the next tick

	bool ended; // sv_inst_end has run: the memory is gone, what was gathered stays
	bool keep;  // once ended: its buffers are small enough to be kept for another
} sv_view;

// What sv_start reports, besides what sv_poll does.
enum { SV_STARTED = 0, SV_NO_ROOM = -1, SV_NO_MEMORY = -2, SV_TOO_LARGE = -3 };
typedef struct sv_started {
	sv_inst *in; // when event is below zero: what is to be kept or dropped, or NULL
	int event;
} sv_started;
// Starts an instance, in the struct of one that ended if spare is not NULL. With
// SV_POLL it is polled at once, and ended at once if that was all: one crossing. A tick that
// finds more than cpu_limit used makes it trap where it is; 0: none does.
sv_started sv_start(sv_prog *prog, sv_inst *spare, const uint8_t *head, size_t head_len, uint32_t flags, int64_t memory_limit,
	uint32_t log_limit, uint32_t head_limit, uint64_t cpu_limit);
int sv_poll(sv_inst *in);
// Writes back what is kept of the pages that overlap the bytes from..to, all of it at UINT64_MAX.
void sv_unfold(sv_inst *in, uint64_t from, uint64_t to);
// Reads the value of an exported global after SV_DONE; false if there is none of a number type.
bool sv_inst_global(sv_inst *in, const char *name, size_t n, uint8_t *type, uint64_t *bits);
// Ends the guest wherever it is; slot, stack and store are given back, the struct
// is kept for another start or dropped.
void sv_inst_end(sv_inst *in);
void sv_inst_drop(sv_inst *in);

// A thread for guests that compute long. *done is an eventfd, the caller's: it counts up when
// what was asked for last is over, and nothing else may be asked for before that.
typedef struct sv_thread sv_thread;
char *sv_thread_new(sv_thread **out, int *done);
// Polls until the guest does not just yield, or has used so much processor time in all.
void sv_thread_poll(sv_thread *t, sv_inst *in, uint64_t cpu_ns);
int sv_thread_event(sv_thread *t); // what that poll came to
void sv_thread_end(sv_thread *t, sv_inst *in); // as sv_inst_end
void sv_thread_free(sv_thread *t); // it has nothing to do

#endif
