package doctor

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/selvage-edge/selvage/runtime/jail"
)

// Kernels from which on something works.
var (
	scanKernel  = version{6, 7}  // PAGEMAP_SCAN
	guardKernel = version{6, 13} // MADV_GUARD_INSTALL
)

type version [2]int

func (v version) less(w version) bool { return v[0] < w[0] || v[0] == w[0] && v[1] < w[1] }

// parseVersion reads the beginning of a kernel's release, such as "6.1.0-18-amd64".
func parseVersion(release string) (v version, err error) {
	if _, err := fmt.Sscanf(release, "%d.%d", &v[0], &v[1]); err != nil {
		return v, fmt.Errorf("kernel release %q is not of the form 6.7.0", release)
	}
	return v, nil
}

func kernel() []Finding {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return []Finding{{Level: Warn, Name: "kernel", Found: err.Error()}}
	}
	release := unix.ByteSliceToString(u.Release[:])
	v, err := parseVersion(release)
	found := fmt.Sprintf("%s %s", unix.ByteSliceToString(u.Sysname[:]), release)
	if err != nil {
		return []Finding{{Level: Warn, Name: "kernel", Found: found, Means: err.Error()}}
	}
	return []Finding{
		judge(!v.less(scanKernel), Warn, "kernel", found, "memory of functions is reset by mapping it anew: some microseconds more for each request", "use a kernel of 6.7 or newer"),
		pagemapScan(),
		guardPages(v),
		seals(),
	}
}

// pagemapScan tries PAGEMAP_SCAN on a page of its own: it must be seen once it is written.
func pagemapScan() Finding {
	const name = "memory reset (PAGEMAP_SCAN)"
	err := tryScan()
	return judge(err == nil, Warn, name, text(err, ""), "memory of functions is reset by mapping it anew: slower, and as safe", "use a kernel of 6.7 or newer, and do not hide /proc/self/pagemap")
}

// scanArg is struct pm_scan_arg of linux/fs.h.
type scanArg struct {
	size, flags, start, end, walkEnd, vec, vecLen, maxPages, inverted, mask, anyOf, returned uint64
}

type scanRegion struct{ start, end, categories uint64 }

func tryScan() error {
	const ioctlScan, present = 0xc0606610, 1 << 3
	page := os.Getpagesize()
	mem, err := unix.Mmap(-1, 0, page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Munmap(mem) }()
	mem[0] = 1
	f, err := os.Open("/proc/self/pagemap")
	if err != nil {
		return err
	}
	defer f.Close()
	var region [1]scanRegion
	at := uint64(uintptr(unsafe.Pointer(&mem[0])))
	arg := scanArg{start: at, end: at + uint64(page), vec: uint64(uintptr(unsafe.Pointer(&region[0]))), vecLen: 1, mask: present, returned: present}
	arg.size = uint64(unsafe.Sizeof(arg))
	n, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), ioctlScan, uintptr(unsafe.Pointer(&arg)))
	if errno != 0 {
		return errno
	}
	if n != 1 || region[0].start != at {
		return errors.New("a page that was written is not seen")
	}
	return nil
}

// guardPages tries the cheap guard pages: without them each slot costs two maps more.
func guardPages(v version) Finding {
	const install = 102
	page := os.Getpagesize()
	mem, err := unix.Mmap(-1, 0, page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err == nil {
		err = unix.Madvise(mem, install)
		_ = unix.Munmap(mem)
	}
	remedy := "use a kernel of 6.13 or newer, or raise vm.max_map_count"
	if !v.less(guardKernel) {
		remedy = "raise vm.max_map_count"
	}
	return judge(err == nil, Warn, "guard pages (MADV_GUARD)", text(err, ""), "a waiting function takes two memory maps more", remedy)
}

func seals() Finding {
	fd, err := unix.MemfdCreate("doctor", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err == nil {
		_, err = unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_WRITE|unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_SEAL)
		_ = unix.Close(fd)
	}
	return judge(err == nil, Fail, "sealed memory (memfd)", text(err, ""), "code and images cannot be kept from being changed: nodes do not start", "allow memfd_create and its seals (a container's seccomp profile may forbid them)")
}

// mapsPerGuest is what a function that waits takes of vm.max_map_count, at most.
const mapsPerGuest = 5

func memory() []Finding {
	const path = "/proc/sys/vm/max_map_count"
	n, err := readNumber(path)
	if err != nil {
		return []Finding{{Level: Warn, Name: "vm.max_map_count", Found: err.Error()}}
	}
	return []Finding{judge(n >= 262144, Warn, "vm.max_map_count", strconv.Itoa(n),
		fmt.Sprintf("about %d functions can wait at once on this node; more get 503", max(0, n-8192)/mapsPerGuest),
		"sysctl -w vm.max_map_count=1048576, and in /etc/sysctl.d for the next start")}
}

func limits() []Finding {
	var l unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &l); err != nil {
		return []Finding{{Level: Warn, Name: "open files", Found: err.Error()}}
	}
	found := fmt.Sprintf("%d, may be raised to %d", l.Cur, l.Max)
	level := Warn
	if l.Max < 4096 {
		level = Fail
	}
	return []Finding{judge(l.Max >= 65536, level, "open files (nofile)", found,
		"each connection and each image takes one: new ones are refused when they run out", "LimitNOFILE=1048576 in the systemd unit, or ulimit -Hn")}
}

func jails() []Finding {
	var all []Finding
	for _, c := range jail.Capabilities() {
		all = append(all, judge(c.OK, Warn, "jail: "+c.Name, c.Detail, "a jail lacks this wall; the others stand", c.Remedy))
	}
	return all
}

func readNumber(path string) (int, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		return 0, fmt.Errorf("%s: %w", filepath.Base(path), err)
	}
	return n, nil
}
