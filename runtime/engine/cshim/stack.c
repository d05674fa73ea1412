// Stacks for fibers. A used one keeps its top 64 KiB; what a deep recursion
// dirtied below goes back to the kernel.
#include "internal.h"

#include <sys/mman.h>

// A guest cannot reach its stack's memory, only the native code that runs on
// it, so bytes that stay are no leak. The guard is wide enough that no frame of
// this room or of wasmtime's (both probe page by page) can step over it.
#define GUARD ((size_t)64 << 10)
#define KEEP ((size_t)64 << 10)
#define DROP_EVERY 64 // frees without a sign of deep use before dropping anyway
#define MAX_FREE 4096

struct sv_stack {
	sv_stack *next;
	uint8_t *low; // above the guard
	size_t size;
	unsigned frees;
};

static pthread_mutex_t lock = PTHREAD_ADAPTIVE_MUTEX_INITIALIZER_NP; // of spare
static sv_stack *spare;

// The page below what is kept is zeroes, the kernel's own as long as nobody has
// written there: it costs a waiting guest nothing. A stack that grew past it has
// overwritten some of that; asking the kernel each time costs more.
static const uint8_t untouched[128];

static uint8_t *mark(const sv_stack *s) { return s->low + s->size - KEEP - SV_PAGE; }

static void unmap(sv_stack *s) {
	munmap(s->low - GUARD, GUARD + s->size);
	free(s);
}

static sv_stack *stack_make(size_t size) {
	size = (size + SV_PAGE - 1) / SV_PAGE * SV_PAGE;
	if (size < KEEP + 2 * SV_PAGE) return NULL;
	sv_stack *s = calloc(1, sizeof *s);
	if (!s) return NULL;
	uint8_t *p = mmap(NULL, GUARD + size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK, -1, 0);
	if (p == MAP_FAILED) {
		free(s);
		return NULL;
	}
	s->low = p + GUARD;
	s->size = size;
	if (mprotect(s->low, size, PROT_READ | PROT_WRITE)) {
		unmap(s);
		return NULL;
	}
	return s;
}

static uint8_t *stack_get(void *env, size_t *len) {
	sv_stack *s = env;
	*len = s->size;
	return s->low + s->size;
}

// Whether the mark was written over. A stack grows into it from the top,
// call by call: the lines looked at are those, and a few further down for a
// frame that stepped over them. What this misses DROP_EVERY finds; to compare
// all of it would push a quarter of what this processor has cached aside.
bool sv_stack_deep(const sv_stack *s) {
	const uint8_t *m = mark(s);
	if (memcmp(m + SV_PAGE - sizeof untouched, untouched, sizeof untouched)) return true;
	for (size_t o = 0; o < SV_PAGE; o += SV_PAGE / 4)
		if (memcmp(m + o, untouched, 16)) return true;
	return false;
}

// False when the stack cannot be kept.
static bool stack_trim(sv_stack *s) {
	if (!sv_stack_deep(s) && ++s->frees % DROP_EVERY) return true;
	return !madvise(s->low, s->size - KEEP, MADV_DONTNEED);
}

// The stack that a processor used last is the one it has in its caches: it is
// kept aside for that processor's next fiber, and counted with the process's base.
static _Atomic(sv_stack *) hot[SV_PROCESSORS];

static void stack_free(void *env) {
	sv_stack *s = env;
	if (!stack_trim(s) || atomic_load_explicit(&sv_count.free_stacks, memory_order_relaxed) >= MAX_FREE) {
		unmap(s);
		return;
	}
	s = atomic_exchange(&hot[sv_processor()], s);
	if (!s) return;
	pthread_mutex_lock(&lock);
	s->next = spare;
	spare = s;
	pthread_mutex_unlock(&lock);
	atomic_fetch_add_explicit(&sv_count.free_stacks, 1, memory_order_relaxed);
}

static sv_stack *stack_take(void) {
	pthread_mutex_lock(&lock);
	sv_stack *s = spare;
	if (s) spare = s->next;
	pthread_mutex_unlock(&lock);
	if (s) atomic_fetch_sub_explicit(&sv_count.free_stacks, 1, memory_order_relaxed);
	return s;
}

wasmtime_error_t *sv_stack_new(void *env, size_t size, bool zeroed, wasmtime_stack_memory_t *out) {
	(void)env;
	if (zeroed) return wasmtime_error_new("selvage: zeroed stacks are not offered");
	sv_stack *s = atomic_exchange(&hot[sv_processor()], NULL);
	if (!s) s = stack_take();
	if (!s) s = stack_make(size);
	if (!s) {
		if (sv_current) sv_current->own_code = SV_TRAP_CAPACITY;
		return wasmtime_error_new("selvage: no room to map another stack");
	}
	if (sv_current) sv_current->box->stack = s;
	*out = (wasmtime_stack_memory_t){.env = s, .get_stack_memory = stack_get, .finalizer = stack_free};
	return NULL;
}
