package jail

import (
	"os"

	"golang.org/x/sys/unix"
)

// prSetVMA names memory; Go's runtime does it.
const prSetVMA = 0x53564d41

// helperRules are the calls that computing takes: memory, threads, clocks, files
// that are open, and leaving. Everything else is refused: there is no call among
// these that takes a path, makes a socket, starts a program or names a process
// other than this one.
func helperRules() []rule {
	pid := uint64(os.Getpid())
	rules := []rule{
		{nr: unix.SYS_CLONE, then: allow, when: threadsOnly},
		{nr: unix.SYS_CLONE3, then: absent}, // its flags are in memory, where a filter cannot look
		{nr: unix.SYS_TGKILL, then: allow, when: is(0, pid)},
		{nr: unix.SYS_KILL, then: allow, when: is(0, pid)},
		{nr: unix.SYS_PRLIMIT64, then: allow, when: is(0, 0)},
		{nr: unix.SYS_PRCTL, then: allow, when: is(0, unix.PR_SET_NAME, prSetVMA)},
		{nr: unix.SYS_FCNTL, then: allow, when: is(1, unix.F_GETFD, unix.F_SETFD, unix.F_GETFL, unix.F_SETFL,
			unix.F_DUPFD_CLOEXEC, unix.F_ADD_SEALS, unix.F_GET_SEALS)},
	}
	for _, nr := range helperCalls {
		rules = append(rules, rule{nr: nr, then: allow})
	}
	return rules
}

// threadsOnly lets clone make threads of this process: no process, no namespace.
var threadsOnly = []match{{{0, unix.CLONE_THREAD | unix.CLONE_VM | unix.CLONE_SIGHAND | newSpaces, unix.CLONE_THREAD | unix.CLONE_VM | unix.CLONE_SIGHAND}}}

const newSpaces = unix.CLONE_NEWNS | unix.CLONE_NEWCGROUP | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC |
	unix.CLONE_NEWUSER | unix.CLONE_NEWPID | unix.CLONE_NEWNET

// helperCalls are allowed with any arguments. What Go's runtime and the engine were
// seen to use is here, with what other versions of both, and of the C
// library, use in its place.
var helperCalls = []uint32{
	// Memory.
	unix.SYS_MMAP, unix.SYS_MUNMAP, unix.SYS_MREMAP, unix.SYS_MPROTECT, unix.SYS_MADVISE, unix.SYS_MINCORE, unix.SYS_BRK,
	unix.SYS_MEMFD_CREATE,
	// Files that are open.
	unix.SYS_READ, unix.SYS_PREAD64, unix.SYS_READV, unix.SYS_WRITE, unix.SYS_PWRITE64, unix.SYS_WRITEV, unix.SYS_LSEEK,
	unix.SYS_FSTAT, unix.SYS_FTRUNCATE, unix.SYS_CLOSE, unix.SYS_PIPE2, unix.SYS_EVENTFD2,
	unix.SYS_POLL, unix.SYS_PPOLL, unix.SYS_EPOLL_CREATE1, unix.SYS_EPOLL_CTL, unix.SYS_EPOLL_WAIT, unix.SYS_EPOLL_PWAIT, unix.SYS_EPOLL_PWAIT2,
	// Threads and signals.
	unix.SYS_FUTEX, unix.SYS_SET_ROBUST_LIST, unix.SYS_GET_ROBUST_LIST, unix.SYS_RSEQ, unix.SYS_ARCH_PRCTL, unix.SYS_SET_TID_ADDRESS, unix.SYS_MEMBARRIER,
	unix.SYS_GETPID, unix.SYS_GETTID, unix.SYS_GETPPID, unix.SYS_GETUID, unix.SYS_GETEUID, unix.SYS_GETGID, unix.SYS_GETEGID,
	unix.SYS_SCHED_YIELD, unix.SYS_SCHED_GETAFFINITY, unix.SYS_GETCPU, unix.SYS_GETPRIORITY,
	unix.SYS_RT_SIGACTION, unix.SYS_RT_SIGPROCMASK, unix.SYS_RT_SIGRETURN, unix.SYS_SIGALTSTACK, unix.SYS_RESTART_SYSCALL,
	unix.SYS_EXIT, unix.SYS_EXIT_GROUP,
	// Clocks, chance, and what the machine has.
	unix.SYS_NANOSLEEP, unix.SYS_CLOCK_NANOSLEEP, unix.SYS_CLOCK_GETTIME, unix.SYS_CLOCK_GETRES, unix.SYS_GETTIMEOFDAY, unix.SYS_TIME,
	unix.SYS_GETRANDOM, unix.SYS_GETRLIMIT, unix.SYS_GETRUSAGE, unix.SYS_TIMES, unix.SYS_SYSINFO, unix.SYS_UNAME,
}

// lock puts the filter on the helper: the last thing that it does of its own.
// What the kernel does not have, its parent has told of.
func lock() error {
	if seccompSupport() != nil {
		return nil
	}
	return install(assemble(helperRules(), refuse))
}
