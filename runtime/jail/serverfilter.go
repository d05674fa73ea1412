package jail

import (
	"os"
	"slices"

	"golang.org/x/sys/unix"
)

// serverRules are the calls that serving never takes and that would carry an
// escaped guest further: to other programs and processes, to the kernel's own
// interfaces, to files by ways that Landlock does not see. The rest is allowed:
// a server is long-lived and large, and what it needs must not depend on which
// line of which library runs tonight.
func serverRules() []rule {
	pid := uint64(os.Getpid())
	rules := []rule{
		// First what requests make: it is looked up each time, as it depends on arguments.
		{nr: unix.SYS_IOCTL, then: allow, when: is(1, pagemapScan, unix.TCGETS)},
		{nr: unix.SYS_TGKILL, then: allow, when: is(0, pid)},
		// The calling thread's own: the engine has some weigh less, with longer slices. Another's or more than a fair share takes capabilities.
		{nr: unix.SYS_SCHED_SETATTR, then: allow, when: is(0, 0)},
		{nr: unix.SYS_CLONE, then: allow, when: threadsOnly},
		{nr: unix.SYS_CLONE3, then: absent}, // its flags are in memory, where a filter cannot look
		{nr: unix.SYS_KILL, then: allow, when: is(0, pid)},
		{nr: unix.SYS_PRLIMIT64, then: allow, when: is(0, 0)},
		{nr: unix.SYS_PRCTL, then: allow, when: is(0, unix.PR_SET_NAME, prSetVMA)},
		{nr: unix.SYS_SOCKET, then: allow, when: serverSockets()},
		// Not F_SETOWN and F_SETSIG: with them the kernel sends signals to others for us.
		{nr: unix.SYS_FCNTL, then: allow, when: is(1, unix.F_DUPFD, unix.F_DUPFD_CLOEXEC, unix.F_GETFD, unix.F_SETFD, unix.F_GETFL, unix.F_SETFL,
			unix.F_GETLK, unix.F_SETLK, unix.F_SETLKW, unix.F_OFD_GETLK, unix.F_OFD_SETLK, unix.F_OFD_SETLKW,
			unix.F_ADD_SEALS, unix.F_GET_SEALS, unix.F_GETPIPE_SZ, unix.F_SETPIPE_SZ)},
		// Of a file that is open, not by path: how the artifact store notes what is in use.
		{nr: unix.SYS_UTIMENSAT, then: allow, when: []match{{{1, 1<<64 - 1, 0}}}},
	}
	for _, nr := range slices.Concat(otherPrograms, kernelInterfaces, passLandlock, identity) {
		rules = append(rules, rule{nr: nr, then: refuse})
	}
	return rules
}

// pagemapScan is PAGEMAP_SCAN: how the engine finds the pages a guest wrote.
const pagemapScan = 0xc0606610

// serverSockets are TCP and UDP, and the kernel's list of interfaces and routes,
// which Go reads. No UNIX sockets: the machine's other services have theirs.
func serverSockets() []match {
	const kind = 0xf // below are flags
	var any []match
	for _, domain := range []uint64{unix.AF_INET, unix.AF_INET6} {
		for _, s := range [][2]uint64{
			{unix.SOCK_STREAM, 0}, {unix.SOCK_STREAM, unix.IPPROTO_TCP}, {unix.SOCK_STREAM, unix.IPPROTO_MPTCP},
			{unix.SOCK_DGRAM, 0}, {unix.SOCK_DGRAM, unix.IPPROTO_UDP},
		} {
			any = append(any, match{{0, 1<<32 - 1, domain}, {1, kind, s[0]}, {2, 1<<32 - 1, s[1]}})
		}
	}
	return append(any, match{{0, 1<<32 - 1, unix.AF_NETLINK}, {2, 1<<32 - 1, unix.NETLINK_ROUTE}})
}

// otherPrograms: running them, reading and steering other processes, sharing memory with them.
var otherPrograms = []uint32{
	unix.SYS_EXECVE, unix.SYS_EXECVEAT, unix.SYS_FORK, unix.SYS_VFORK,
	unix.SYS_PTRACE, unix.SYS_PROCESS_VM_READV, unix.SYS_PROCESS_VM_WRITEV, unix.SYS_PROCESS_MADVISE, unix.SYS_PROCESS_MRELEASE, unix.SYS_KCMP,
	unix.SYS_PIDFD_OPEN, unix.SYS_PIDFD_GETFD, unix.SYS_PIDFD_SEND_SIGNAL,
	unix.SYS_TKILL, unix.SYS_RT_SIGQUEUEINFO, unix.SYS_RT_TGSIGQUEUEINFO,
	unix.SYS_MOVE_PAGES, unix.SYS_MIGRATE_PAGES,
	unix.SYS_SCHED_SETPARAM, unix.SYS_SCHED_SETSCHEDULER, unix.SYS_SCHED_SETATTR, unix.SYS_SCHED_SETAFFINITY, unix.SYS_SETPRIORITY, unix.SYS_IOPRIO_SET,
	unix.SYS_SETPGID, unix.SYS_SETSID,
	unix.SYS_SHMGET, unix.SYS_SHMAT, unix.SYS_SHMCTL, unix.SYS_SEMGET, unix.SYS_SEMOP, unix.SYS_SEMTIMEDOP, unix.SYS_SEMCTL,
	unix.SYS_MSGGET, unix.SYS_MSGSND, unix.SYS_MSGRCV, unix.SYS_MSGCTL,
	unix.SYS_MQ_OPEN, unix.SYS_MQ_UNLINK, unix.SYS_MQ_TIMEDSEND, unix.SYS_MQ_TIMEDRECEIVE, unix.SYS_MQ_NOTIFY, unix.SYS_MQ_GETSETATTR,
	unix.SYS_SOCKETPAIR,
}

// kernelInterfaces: large doors of the kernel that serving does not go through.
var kernelInterfaces = []uint32{
	unix.SYS_BPF, unix.SYS_PERF_EVENT_OPEN, unix.SYS_USERFAULTFD, unix.SYS_SECCOMP,
	unix.SYS_IO_URING_SETUP, unix.SYS_IO_URING_ENTER, unix.SYS_IO_URING_REGISTER,
	unix.SYS_ADD_KEY, unix.SYS_REQUEST_KEY, unix.SYS_KEYCTL,
	unix.SYS_MOUNT, unix.SYS_UMOUNT2, unix.SYS_MOVE_MOUNT, unix.SYS_OPEN_TREE, unix.SYS_FSOPEN, unix.SYS_FSCONFIG, unix.SYS_FSMOUNT, unix.SYS_FSPICK,
	unix.SYS_MOUNT_SETATTR, unix.SYS_STATMOUNT, unix.SYS_LISTMOUNT, unix.SYS_PIVOT_ROOT, unix.SYS_CHROOT,
	unix.SYS_UNSHARE, unix.SYS_SETNS,
	unix.SYS_KEXEC_LOAD, unix.SYS_KEXEC_FILE_LOAD, unix.SYS_INIT_MODULE, unix.SYS_FINIT_MODULE, unix.SYS_DELETE_MODULE, unix.SYS_CREATE_MODULE,
	unix.SYS_REBOOT, unix.SYS_SWAPON, unix.SYS_SWAPOFF, unix.SYS_ACCT, unix.SYS_QUOTACTL, unix.SYS_QUOTACTL_FD, unix.SYS_SYSLOG, unix.SYS_VHANGUP,
	unix.SYS_IOPL, unix.SYS_IOPERM, unix.SYS_MODIFY_LDT, unix.SYS_PERSONALITY, unix.SYS_USELIB, unix.SYS__SYSCTL,
	unix.SYS_LSM_SET_SELF_ATTR,
}

// passLandlock: what works on files by path, or on files that may only be read,
// and that Landlock lets pass.
var passLandlock = []uint32{
	unix.SYS_CHMOD, unix.SYS_FCHMOD, unix.SYS_FCHMODAT, unix.SYS_FCHMODAT2,
	unix.SYS_CHOWN, unix.SYS_FCHOWN, unix.SYS_LCHOWN, unix.SYS_FCHOWNAT,
	unix.SYS_UTIME, unix.SYS_UTIMES, unix.SYS_FUTIMESAT,
	unix.SYS_SETXATTR, unix.SYS_LSETXATTR, unix.SYS_FSETXATTR, unix.SYS_SETXATTRAT,
	unix.SYS_REMOVEXATTR, unix.SYS_LREMOVEXATTR, unix.SYS_FREMOVEXATTR, unix.SYS_REMOVEXATTRAT,
	unix.SYS_MKNOD, unix.SYS_MKNODAT, unix.SYS_NAME_TO_HANDLE_AT, unix.SYS_OPEN_BY_HANDLE_AT,
	unix.SYS_INOTIFY_ADD_WATCH, unix.SYS_FANOTIFY_INIT, unix.SYS_FANOTIFY_MARK, unix.SYS_LOOKUP_DCOOKIE,
}

// identity: who the process is, and what time and name the machine has.
var identity = []uint32{
	unix.SYS_SETUID, unix.SYS_SETGID, unix.SYS_SETREUID, unix.SYS_SETREGID, unix.SYS_SETRESUID, unix.SYS_SETRESGID,
	unix.SYS_SETFSUID, unix.SYS_SETFSGID, unix.SYS_SETGROUPS, unix.SYS_CAPSET,
	unix.SYS_SETTIMEOFDAY, unix.SYS_CLOCK_SETTIME, unix.SYS_ADJTIMEX, unix.SYS_CLOCK_ADJTIME,
	unix.SYS_SETHOSTNAME, unix.SYS_SETDOMAINNAME,
}
