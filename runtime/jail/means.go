package jail

import (
	"context"
	"fmt"
	"os"
	"syscall"
	"time"
)

// means are the walls that only the parent can build, at clone time.
type means struct {
	ownUser bool    // a user id of its own (needs root)
	spaces  uintptr // CLONE_NEW* flags
}

// Missing is one wall that could not be had, with the reason.
type Missing struct {
	What string
	Why  error
}

func (m Missing) String() string { return m.What + ": " + m.Why.Error() }

// wall is one of the means, by itself.
type wall struct {
	name string
	means
}

// wallsFor lists what is tried. Without root every namespace needs a user
// namespace around it, which also leaves the child without capabilities.
func wallsFor(root bool) (base means, walls []wall) {
	if !root {
		base = means{spaces: syscall.CLONE_NEWUSER}
	}
	if root {
		walls = append(walls, wall{"own user id", means{ownUser: true}})
	}
	return base, append(walls,
		wall{"network namespace", means{spaces: syscall.CLONE_NEWNET}},
		wall{"process namespace", means{spaces: syscall.CLONE_NEWPID}},
		wall{"ipc namespace", means{spaces: syscall.CLONE_NEWIPC}},
		wall{"mount namespace", means{spaces: syscall.CLONE_NEWNS}})
}

func (m means) with(o means) means {
	return means{ownUser: m.ownUser || o.ownUser, spaces: m.spaces | o.spaces}
}

// findMeans tries all walls together and, if that fails, each by itself.
func findMeans(uid int) (means, []Missing, error) {
	base, walls := wallsFor(os.Geteuid() == 0)
	whole := base
	for _, w := range walls {
		whole = whole.with(w.means)
	}
	if try(whole, uid) == nil {
		return whole, nil, nil
	}
	if err := try(means{}, uid); err != nil {
		return means{}, nil, err
	}
	kept, missing := means{}, []Missing(nil)
	for _, w := range walls {
		with := kept.with(base).with(w.means)
		if err := try(with, uid); err != nil {
			missing = append(missing, Missing{w.name, err})
			continue
		}
		kept = with
	}
	return kept, missing, nil
}

func try(m means, uid int) error {
	o, err := runChild(context.Background(), order{exe: self, verb: probe, uid: uid, means: m, wall: 10 * time.Second})
	if err != nil {
		return err
	}
	defer o.Close()
	if o.Status != Done {
		return fmt.Errorf("the trial helper failed: %w", o.failure(probe))
	}
	return nil
}

// attributes are m in the words of clone.
func (m means) attributes(uid int) *syscall.SysProcAttr {
	a := &syscall.SysProcAttr{
		Setpgid:    true,
		Pdeathsig:  syscall.SIGKILL,
		Cloneflags: m.spaces,
	}
	if m.ownUser {
		a.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}
	}
	if m.spaces&syscall.CLONE_NEWUSER != 0 {
		// Not to 0: a root of the namespace would keep capabilities in it.
		a.UidMappings = []syscall.SysProcIDMap{{ContainerID: uid, HostID: os.Geteuid(), Size: 1}}
		a.GidMappings = []syscall.SysProcIDMap{{ContainerID: uid, HostID: os.Getegid(), Size: 1}}
	}
	return a
}
