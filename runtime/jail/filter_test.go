package jail

import (
	"encoding/binary"
	"fmt"
	"testing"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// judge runs a filter outside of the kernel. The machine reads big-endian
// words, so that is how the call is laid out.
func judge(t *testing.T, code []unix.SockFilter, arch, nr uint32, args ...uint64) verdict {
	t.Helper()
	var raw []bpf.RawInstruction
	for _, c := range code {
		raw = append(raw, bpf.RawInstruction{Op: c.Code, Jt: c.Jt, Jf: c.Jf, K: c.K})
	}
	program, whole := bpf.Disassemble(raw)
	if !whole {
		t.Fatal("there is an instruction in it that nobody knows")
	}
	vm, err := bpf.NewVM(program)
	if err != nil {
		t.Fatal(err)
	}
	data := make([]byte, 64)
	binary.BigEndian.PutUint32(data[offsetCall:], nr)
	binary.BigEndian.PutUint32(data[offsetArchitecture:], arch)
	for i, a := range args {
		binary.BigEndian.PutUint32(data[offsetArguments+8*i:], uint32(a))
		binary.BigEndian.PutUint32(data[offsetArguments+8*i+4:], uint32(a>>32))
	}
	v, err := vm.Run(data)
	if err != nil {
		t.Fatal(err)
	}
	return verdict(v)
}

func TestFilter(t *testing.T) {
	code := assemble([]rule{
		{nr: 1, then: allow},
		{nr: 2, then: absent},
		{nr: 3, then: allow, when: is(1, 7, 9)},
		{nr: 4, then: allow, when: []match{{{0, 0xf, 2}, {2, 1<<64 - 1, 1<<40 | 5}}, {{1, 1<<32 - 1, 6}}}},
		{nr: 1, then: kill}, // never looked at: the first rule decides
	}, refuse)
	const here = unix.AUDIT_ARCH_X86_64
	for _, c := range []struct {
		arch, nr uint32
		args     []uint64
		want     verdict
	}{
		{here, 1, nil, allow},
		{here, 2, nil, absent},
		{here, 0, nil, refuse},
		{here, 5, nil, refuse},
		{here, 3, []uint64{7, 8}, refuse},
		{here, 3, []uint64{0, 7}, allow},
		{here, 3, []uint64{0, 9}, allow},
		{here, 3, []uint64{0, 1<<32 | 9}, allow}, // the kernel takes an int too
		{here, 3, []uint64{9, 0}, refuse},
		{here, 4, []uint64{0xff2, 0, 1<<40 | 5}, allow},
		{here, 4, []uint64{0xff2, 0, 5}, refuse},
		{here, 4, []uint64{0xff2, 0, 1 << 40}, refuse},
		{here, 4, []uint64{0xff3, 0, 1<<40 | 5}, refuse},
		{here, 4, []uint64{0, 6, 0}, allow}, // the second way
		{here, x32 | 1, nil, kill},
		{here, ^uint32(0), nil, kill},
		{unix.AUDIT_ARCH_I386, 1, nil, kill},
		{unix.AUDIT_ARCH_AARCH64, 1, nil, kill},
	} {
		if got := judge(t, code, c.arch, c.nr, c.args...); got != c.want {
			t.Errorf("arch %x call %x %x: %x, want %x", c.arch, c.nr, c.args, got, c.want)
		}
	}
}

// forbidden are calls that no jail may let through, whatever their arguments.
var forbidden = []uint32{
	unix.SYS_EXECVE, unix.SYS_EXECVEAT, unix.SYS_FORK, unix.SYS_VFORK, unix.SYS_CLONE3,
	unix.SYS_PTRACE, unix.SYS_PROCESS_VM_READV, unix.SYS_PROCESS_VM_WRITEV, unix.SYS_PIDFD_GETFD, unix.SYS_KCMP,
	unix.SYS_BPF, unix.SYS_PERF_EVENT_OPEN, unix.SYS_USERFAULTFD, unix.SYS_SECCOMP,
	unix.SYS_IO_URING_SETUP, unix.SYS_IO_URING_ENTER, unix.SYS_IO_URING_REGISTER,
	unix.SYS_KEYCTL, unix.SYS_ADD_KEY, unix.SYS_REQUEST_KEY,
	unix.SYS_MOUNT, unix.SYS_UMOUNT2, unix.SYS_MOVE_MOUNT, unix.SYS_OPEN_TREE, unix.SYS_FSOPEN, unix.SYS_FSCONFIG, unix.SYS_FSMOUNT,
	unix.SYS_FSPICK, unix.SYS_MOUNT_SETATTR, unix.SYS_PIVOT_ROOT, unix.SYS_CHROOT, unix.SYS_UNSHARE, unix.SYS_SETNS,
	unix.SYS_KEXEC_LOAD, unix.SYS_KEXEC_FILE_LOAD, unix.SYS_INIT_MODULE, unix.SYS_FINIT_MODULE, unix.SYS_DELETE_MODULE,
	unix.SYS_OPEN_BY_HANDLE_AT, unix.SYS_NAME_TO_HANDLE_AT, unix.SYS_CHMOD, unix.SYS_FCHMODAT, unix.SYS_FCHMODAT2, unix.SYS_CHOWN, unix.SYS_FCHOWNAT,
	unix.SYS_SETUID, unix.SYS_SETRESUID, unix.SYS_SETGROUPS, unix.SYS_CAPSET, unix.SYS_REBOOT, unix.SYS_SOCKETPAIR,
}

// helperForbidden are those that a helper has no use for, and a server has.
var helperForbidden = []uint32{
	unix.SYS_SOCKET, unix.SYS_CONNECT, unix.SYS_BIND, unix.SYS_LISTEN, unix.SYS_ACCEPT, unix.SYS_ACCEPT4, unix.SYS_SENDTO, unix.SYS_SENDMSG, unix.SYS_SENDMMSG,
	unix.SYS_RECVFROM, unix.SYS_RECVMSG,
	unix.SYS_OPEN, unix.SYS_OPENAT, unix.SYS_OPENAT2, unix.SYS_CREAT, unix.SYS_STAT, unix.SYS_LSTAT, unix.SYS_NEWFSTATAT, unix.SYS_STATX,
	unix.SYS_ACCESS, unix.SYS_FACCESSAT, unix.SYS_FACCESSAT2, unix.SYS_READLINK, unix.SYS_READLINKAT, unix.SYS_STATFS, unix.SYS_CHDIR, unix.SYS_FCHDIR,
	unix.SYS_MKDIR, unix.SYS_MKDIRAT, unix.SYS_UNLINK, unix.SYS_UNLINKAT, unix.SYS_RENAME, unix.SYS_RENAMEAT, unix.SYS_RENAMEAT2, unix.SYS_LINK, unix.SYS_SYMLINK,
	unix.SYS_TRUNCATE, unix.SYS_GETDENTS64, unix.SYS_IOCTL, unix.SYS_SHMGET, unix.SYS_MSGGET, unix.SYS_MQ_OPEN,
}

func TestForbiddenCalls(t *testing.T) {
	helper, server := assemble(helperRules(), refuse), assemble(serverRules(), allow)
	for _, args := range [][]uint64{{0, 0, 0, 0, 0, 0}, {1, 1, 1, 1, 1, 1}, {^uint64(0), ^uint64(0), ^uint64(0), ^uint64(0), ^uint64(0), ^uint64(0)}} {
		for _, nr := range forbidden {
			for name, code := range map[string][]unix.SockFilter{"helper": helper, "server": server} {
				if v := judge(t, code, unix.AUDIT_ARCH_X86_64, nr, args...); v == allow {
					t.Errorf("%s: call %d is allowed with %x", name, nr, args)
				}
			}
		}
		for _, nr := range helperForbidden {
			if v := judge(t, helper, unix.AUDIT_ARCH_X86_64, nr, args...); v == allow {
				t.Errorf("helper: call %d is allowed with %x", nr, args)
			}
		}
	}
}

// What depends on arguments: the call, arguments, and who may.
func TestCallsByArgument(t *testing.T) {
	self := uint64(unix.Getpid())
	const thread = unix.CLONE_VM | unix.CLONE_FS | unix.CLONE_FILES | unix.CLONE_SIGHAND | unix.CLONE_THREAD | unix.CLONE_SYSVSEM | unix.CLONE_SETTLS
	helper, server := assemble(helperRules(), refuse), assemble(serverRules(), allow)
	for _, c := range []struct {
		nr             uint32
		args           []uint64
		helper, server bool
	}{
		{unix.SYS_CLONE, []uint64{thread}, true, true},
		{unix.SYS_CLONE, []uint64{uint64(unix.SIGCHLD)}, false, false},
		{unix.SYS_CLONE, []uint64{unix.CLONE_VM | unix.CLONE_VFORK | uint64(unix.SIGCHLD)}, false, false},
		{unix.SYS_CLONE, []uint64{thread | unix.CLONE_NEWUSER}, false, false},
		{unix.SYS_CLONE, []uint64{thread | unix.CLONE_NEWNS}, false, false},
		{unix.SYS_CLONE, []uint64{1<<63 | thread}, true, true}, // the kernel does not look there
		{unix.SYS_TGKILL, []uint64{self, 5, 9}, true, true},
		{unix.SYS_TGKILL, []uint64{self + 1, 5, 9}, false, false},
		{unix.SYS_KILL, []uint64{self, 9}, true, true},
		{unix.SYS_KILL, []uint64{0, 9}, false, false},
		{unix.SYS_KILL, []uint64{^uint64(0), 9}, false, false},
		{unix.SYS_PRLIMIT64, []uint64{0, 1}, true, true},
		{unix.SYS_PRLIMIT64, []uint64{1, 1}, false, false},
		{unix.SYS_PRCTL, []uint64{unix.PR_SET_NAME}, true, true},
		{unix.SYS_PRCTL, []uint64{unix.PR_SET_DUMPABLE, 1}, false, false},
		{unix.SYS_PRCTL, []uint64{1<<32 | unix.PR_SET_DUMPABLE, 1}, false, false},
		{unix.SYS_IOCTL, []uint64{3, pagemapScan}, false, true},
		{unix.SYS_IOCTL, []uint64{0, unix.TIOCSTI}, false, false},
		{unix.SYS_FCNTL, []uint64{3, unix.F_ADD_SEALS}, true, true},
		{unix.SYS_FCNTL, []uint64{3, unix.F_SETOWN}, false, false},
		{unix.SYS_FCNTL, []uint64{3, unix.F_SETSIG}, false, false},
		{unix.SYS_FCNTL, []uint64{3, unix.F_SETLK}, false, true},
		{unix.SYS_UTIMENSAT, []uint64{3, 0}, false, true},
		{unix.SYS_UTIMENSAT, []uint64{3, 0x7000_0000_0000}, false, false},
		{unix.SYS_SOCKET, []uint64{unix.AF_INET, unix.SOCK_STREAM | unix.SOCK_CLOEXEC | unix.SOCK_NONBLOCK, 0}, false, true},
		{unix.SYS_SOCKET, []uint64{unix.AF_INET6, unix.SOCK_STREAM | unix.SOCK_CLOEXEC, unix.IPPROTO_MPTCP}, false, true},
		{unix.SYS_SOCKET, []uint64{unix.AF_INET6, unix.SOCK_DGRAM, unix.IPPROTO_UDP}, false, true},
		{unix.SYS_SOCKET, []uint64{unix.AF_NETLINK, unix.SOCK_RAW | unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE}, false, true},
		{unix.SYS_SOCKET, []uint64{unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_NETFILTER}, false, false},
		{unix.SYS_SOCKET, []uint64{unix.AF_INET, unix.SOCK_RAW, 0}, false, false},
		{unix.SYS_SOCKET, []uint64{unix.AF_INET, unix.SOCK_DGRAM, unix.IPPROTO_ICMP}, false, false},
		{unix.SYS_SOCKET, []uint64{unix.AF_UNIX, unix.SOCK_STREAM, 0}, false, false},
		{unix.SYS_SOCKET, []uint64{unix.AF_PACKET, unix.SOCK_DGRAM, 0}, false, false},
		{unix.SYS_SOCKET, []uint64{unix.AF_VSOCK, unix.SOCK_STREAM, 0}, false, false},
		{unix.SYS_SOCKET, []uint64{unix.AF_ALG, unix.SOCK_SEQPACKET, 0}, false, false},
	} {
		for name, j := range map[string]struct {
			code []unix.SockFilter
			want bool
		}{"helper": {helper, c.helper}, "server": {server, c.server}} {
			if v := judge(t, j.code, unix.AUDIT_ARCH_X86_64, c.nr, c.args...); (v == allow) != j.want {
				t.Errorf("%s: call %d with %x: %s, want allowed %t", name, c.nr, c.args, fmt.Sprintf("%x", v), j.want)
			}
		}
	}
}
