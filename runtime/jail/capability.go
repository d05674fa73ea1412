package jail

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// Capability is one thing that jails rest on and that a kernel, a container or
// an administrator may withhold.
type Capability struct {
	Name   string // a few words, the same on every machine
	OK     bool   // it is to be had here, by this process
	Detail string // what was found: a version, or why not
	Remedy string // what to do about it; empty when OK
}

// Capabilities finds out what this machine gives to jails, without a lasting
// trace and without running a program. A runner's Missing is what its own trial
// helpers met; this is the longer story, for people.
func Capabilities() []Capability {
	all := []Capability{seccompCapability(), landlockCapability(), procCapability()}
	root := os.Geteuid() == 0
	all = append(all, userCapability(root))
	for _, s := range []struct {
		name string
		flag uintptr
	}{
		{"network namespace", unix.CLONE_NEWNET},
		{"process namespace", unix.CLONE_NEWPID},
		{"ipc namespace", unix.CLONE_NEWIPC},
		{"mount namespace", unix.CLONE_NEWNS},
	} {
		all = append(all, spaceCapability(s.name, s.flag, root))
	}
	return all
}

// lacking lists those that are not to be had, as a log wants them.
func lacking(all ...Capability) []Missing {
	var missing []Missing
	for _, c := range all {
		if !c.OK {
			missing = append(missing, Missing{c.Name, fmt.Errorf("%s; %s", c.Detail, c.Remedy)})
		}
	}
	return missing
}

func seccompCapability() Capability {
	c := Capability{Name: "seccomp filter"}
	switch err := seccompSupport(); {
	case err == nil:
		c.OK, c.Detail = true, "system calls of helpers and server are filtered"
	case errors.Is(err, errArchitecture):
		c.Detail, c.Remedy = err.Error(), "run selvage on x86-64"
	default:
		c.Detail, c.Remedy = "the kernel refuses: "+err.Error(), "use a kernel with CONFIG_SECCOMP_FILTER=y and, in a container, a profile that allows seccomp(2)"
	}
	return c
}

func landlockCapability() Capability {
	c := Capability{Name: "landlock"}
	abi, err := landlockABI()
	switch {
	case err == nil:
		c.OK, c.Detail = true, "ABI "+strconv.Itoa(abi)+": files are limited by path"
	case errors.Is(err, unix.EOPNOTSUPP):
		c.Detail, c.Remedy = "the kernel has it, but it is off", "add landlock to the list of the boot parameter lsm=, before the others"
	default:
		c.Detail, c.Remedy = "the kernel refuses: "+err.Error(), "use a kernel from 5.13 on with CONFIG_SECURITY_LANDLOCK=y and, in a container, a profile that allows landlock_create_ruleset(2)"
	}
	return c
}

// procCapability: locking all threads of the server means finding them.
func procCapability() Capability {
	c := Capability{Name: "proc file system"}
	if err := procSupport(); err != nil {
		c.Detail, c.Remedy = err.Error(), "mount /proc for this process namespace (mount -t proc proc /proc)"
		return c
	}
	c.OK, c.Detail = true, "/proc shows this process under its own number"
	return c
}

// procSupport fails if /proc is missing or is that of another process namespace.
func procSupport() error {
	self, err := os.Readlink("/proc/self")
	if err != nil {
		return err
	}
	if want := strconv.Itoa(os.Getpid()); self != want {
		return fmt.Errorf("/proc is of another process namespace: this is process %s there and %s here", self, want)
	}
	return nil
}

func userCapability(root bool) Capability {
	c := Capability{Name: "user of its own for helpers"}
	if root {
		c.OK, c.Detail = true, "root: each helper runs under a user id that nothing else has"
		return c
	}
	if err := tryClone(unix.CLONE_NEWUSER); err != nil {
		c.Detail, c.Remedy = "no root, and no user namespace: "+err.Error(), userRemedy
		return c
	}
	c.OK, c.Detail = true, "no root; a user namespace instead"
	return c
}

const userRemedy = "run as root, or allow user namespaces: sysctl user.max_user_namespaces, kernel.unprivileged_userns_clone and kernel.apparmor_restrict_unprivileged_userns"

func spaceCapability(name string, flag uintptr, root bool) Capability {
	c := Capability{Name: name}
	remedy := userRemedy
	if root {
		remedy = "in a container, give it CAP_SYS_ADMIN or a profile that allows clone(2) with new namespaces"
	} else {
		flag |= unix.CLONE_NEWUSER
	}
	if err := tryClone(flag); err != nil {
		c.Detail, c.Remedy = "the kernel refuses: "+err.Error(), remedy
		return c
	}
	c.OK, c.Detail = true, "helpers get one of their own"
	return c
}

// tryClone makes a child with these flags that runs nothing: the program it is
// to become does not exist, so ENOENT says that the clone itself went well.
func tryClone(flags uintptr) error {
	attributes := means{spaces: flags}.attributes(os.Geteuid())
	attributes.Pdeathsig = 0
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	_, err := syscall.ForkExec("/proc/self/none", []string{"none"}, &syscall.ProcAttr{Sys: attributes})
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	return err
}
