package up

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// claim makes sure that nobody else runs a fleet in this folder or on these
// addresses, and that the folder's fleet is on the addresses it was made for:
// its nodes know the control node by them.
func (f *Fleet) claim() error {
	if err := os.MkdirAll(f.Dir, 0o700); err != nil {
		return fmt.Errorf("up: %w", err)
	}
	lock, err := os.OpenFile(filepath.Join(f.Dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return fmt.Errorf("up: %w", err)
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		lock.Close()
		return fmt.Errorf("another 'selvage up' runs in %s: use that one, or name another folder with --dir", f.Dir)
	}
	f.lock = lock
	if err := f.sameBase(); err != nil {
		return err
	}
	return f.addressesAreFree()
}

func (f *Fleet) sameBase() error {
	path := filepath.Join(f.Dir, "base")
	had, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return os.WriteFile(path, []byte(f.Base.String()+"\n"), 0o600)
	}
	if err != nil {
		return fmt.Errorf("up: %w", err)
	}
	if was := strings.TrimSpace(string(had)); was != f.Base.String() {
		return fmt.Errorf("the fleet in %s was made with --base %s: give that again, or name another folder with --dir", f.Dir, was)
	}
	return nil
}

func (f *Fleet) addressesAreFree() error {
	var taken []string
	if f.Layout.Control.Within == nil {
		taken = append(taken, f.API, f.Peer, f.Gossip, f.Layout.Control.Admin)
	}
	for _, n := range f.Layout.Edges {
		if n.Within == nil {
			taken = append(taken, n.Public, n.Admin)
		}
	}
	for _, a := range taken {
		l, err := net.Listen("tcp", a)
		if err != nil {
			return fmt.Errorf("%w: does another fleet run there? stop it ('ss -lntup' names its process), or give another --base or --port", err)
		}
		l.Close()
	}
	return nil
}
