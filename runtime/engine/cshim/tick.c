// Ticks: what makes running guests let go of the processor, once a millisecond.
#include "internal.h"

#include <errno.h>
#include <linux/futex.h>
#include <limits.h>
#include <signal.h>
#include <sys/syscall.h>
#include <time.h>

// A thousand timers a second are 2 % of a processor on a small machine, so nothing
// ticks while no guest runs: after so many ticks that found none the ticker sleeps.
// Fewer, and requests that come one by one would each pay for waking it.
enum { IDLE_TICKS = 16 };

static pthread_t ticker;
static atomic_bool ticking;
static atomic_int asleep; // futex: 1 while the ticker sleeps until a guest runs

// Guests being polled, each counted where its poll began, so that processors do not share what they count in.
static struct { atomic_int n; } __attribute__((aligned(128))) polled[SV_PROCESSORS];

static bool any_polled(void) {
	for (unsigned i = 0; i < sv_processors; i++)
		if (atomic_load(&polled[i].n)) return true;
	return false;
}

static void wake(void) {
	if (atomic_exchange(&asleep, 0)) syscall(SYS_futex, &asleep, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
}

// First who polls counts itself and then looks whether the ticker sleeps; the ticker
// first says that it does and then counts: one of them sees the other.
unsigned sv_tick_enter(void) {
	unsigned at = sv_processor();
	atomic_fetch_add(&polled[at].n, 1);
	if (atomic_load(&asleep)) wake();
	return at;
}

void sv_tick_leave(unsigned at) { atomic_fetch_sub_explicit(&polled[at].n, 1, memory_order_release); }

static void sleep_until_polled(void) {
	atomic_store(&asleep, 1);
	while (atomic_load(&ticking) && !any_polled() && atomic_load(&asleep))
		syscall(SYS_futex, &asleep, FUTEX_WAIT_PRIVATE, 1, NULL, NULL, 0);
	atomic_store(&asleep, 0);
}

// A thread of C, not a goroutine: when guests hold every processor a goroutine
// waits for the runtime to notice, and the tick is what makes guests let go.
static void *tick(void *unused) {
	(void)unused;
	struct timespec next;
	clock_gettime(CLOCK_MONOTONIC, &next);
	for (int idle = 0; atomic_load_explicit(&ticking, memory_order_relaxed);) {
		uint64_t ns = (uint64_t)next.tv_nsec + sv_cfg.tick_ns;
		next.tv_sec += (time_t)(ns / 1000000000u);
		next.tv_nsec = (long)(ns % 1000000000u);
		clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &next, NULL);
		wasmtime_engine_increment_epoch(sv_engine);
		atomic_fetch_add_explicit(&sv_count.ticks, 1, memory_order_relaxed);
		struct timespec now;
		clock_gettime(CLOCK_MONOTONIC, &now);
		if (now.tv_sec > next.tv_sec + 1) next = now; // after a pause (a suspended machine) do not catch up tick by tick
		idle = any_polled() ? 0 : idle + 1;
		if (idle < IDLE_TICKS) continue;
		sleep_until_polled();
		idle = 0;
		clock_gettime(CLOCK_MONOTONIC, &next);
	}
	return NULL;
}

char *sv_ticker_open(void) {
	sigset_t all, before;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before); // the process's signals are Go's, on Go's threads
	atomic_store(&ticking, true);
	errno = pthread_create(&ticker, NULL, tick, NULL);
	int failed = errno;
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (failed) atomic_store(&ticking, false);
	return failed ? sv_errno("start the ticker") : NULL;
}

void sv_ticker_close(void) {
	if (!atomic_exchange(&ticking, false)) return;
	wake();
	pthread_join(ticker, NULL);
}
