// Threads on which guests compute that compute long.
#include "internal.h"

#include <errno.h>
#include <semaphore.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <unistd.h>

// The kernel judges a thread by what it did last, and Go's threads do everything. If one of
// them computes a guest for its whole slice, whatever Go has it do next waits behind all other
// threads of the machine: a request of somebody else. And what holds one of Go's processors must
// never wait long for one of the machine's: with it wait the goroutines queued there, and the collector.
// So these are none of Go's. They weigh less than others, and ask for long slices (Linux
// 6.12): who wakes up to serve runs at once. Where the kernel refuses either it costs latency only.
#define LIGHTER 5           // added to the nice value
#define LONG_SLICE 20000000 // ns

struct sv_thread {
	pthread_t id;
	sem_t work;
	int done; // an eventfd: Go waits for it as for a socket
	sv_inst *in; // NULL: to end
	bool end;    // it, instead of polling it
	uint64_t cpu_ns;
	int event;
};

static void lighten(void) {
	struct { uint32_t size, policy; uint64_t flags; int32_t nice; uint32_t priority; uint64_t runtime, deadline, period; } attr = {0};
	if (syscall(SYS_sched_getattr, 0, &attr, sizeof attr, 0)) return;
	attr.nice = attr.nice + LIGHTER < 19 ? attr.nice + LIGHTER : 19;
	attr.runtime = LONG_SLICE;
	(void)syscall(SYS_sched_setattr, 0, &attr, 0);
}

static void *serve(void *of) {
	sv_thread *t = of;
	lighten();
	for (;;) {
		while (sem_wait(&t->work)) {} // a signal
		if (!t->in) return NULL;
		if (t->end) {
			sv_inst_end(t->in);
		} else {
			do t->event = sv_poll(t->in);
			while (t->event == SV_YIELD && t->in->v.cpu_ns < t->cpu_ns);
		}
		uint64_t one = 1;
		while (write(t->done, &one, sizeof one) < 0 && errno == EINTR) {}
	}
}

char *sv_thread_new(sv_thread **out, int *done) {
	sv_thread *t = calloc(1, sizeof *t);
	if (!t) return sv_errno("calloc");
	t->done = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (t->done < 0) {
		char *message = sv_errno("eventfd");
		free(t);
		return message;
	}
	sem_init(&t->work, 0, 0);
	// Signals are for Go's threads; what a fault of the thread's own raises stays.
	sigset_t most, before;
	sigfillset(&most);
	for (const int *s = (const int[]){SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGABRT, 0}; *s; s++) sigdelset(&most, *s);
	pthread_sigmask(SIG_SETMASK, &most, &before);
	int failed = pthread_create(&t->id, NULL, serve, t);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (failed) {
		errno = failed;
		char *message = sv_errno("pthread_create");
		close(t->done);
		free(t);
		return message;
	}
	*out = t;
	*done = t->done;
	return NULL;
}

void sv_thread_poll(sv_thread *t, sv_inst *in, uint64_t cpu_ns) {
	t->in = in;
	t->end = false;
	t->cpu_ns = cpu_ns;
	sem_post(&t->work);
}

int sv_thread_event(sv_thread *t) { return t->event; }

void sv_thread_end(sv_thread *t, sv_inst *in) {
	t->in = in;
	t->end = true;
	sem_post(&t->work);
}

void sv_thread_free(sv_thread *t) {
	t->in = NULL;
	sem_post(&t->work);
	pthread_join(t->id, NULL);
	sem_destroy(&t->work);
	free(t);
}
