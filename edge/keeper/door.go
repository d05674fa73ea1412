package keeper

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/selvage-edge/selvage/runtime/sealed"
)

// doorName is the socket's name in the node's state folder.
const doorName = "keeper.sock"

// door is where an operator on this machine asks for an upgrade: the messages
// are those between server and keeper. It is for root and the node's own user,
// but not for what the node itself runs: a server that was taken over must not
// have its keeper execute something.
type door struct {
	listener *net.UnixListener
	path     string
	done     context.Context
	stop     context.CancelFunc
	work     sync.WaitGroup
	seats    chan struct{}
}

// askLimit is how long one may take to say what they want.
const askLimit = 5 * time.Second

func openDoor(dir string, asks chan<- ask) (*door, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("keeper: %w", err)
	}
	d := &door{path: filepath.Join(dir, doorName), seats: make(chan struct{}, 4)}
	err := within(dir, func(short string) (err error) {
		if err := clearAway(d.path); err != nil {
			return err
		}
		d.listener, err = net.ListenUnix("unixpacket", &net.UnixAddr{Name: short, Net: "unixpacket"})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("keeper: open %s: %w", d.path, err)
	}
	d.listener.SetUnlinkOnClose(false) // it would not find the name
	d.done, d.stop = context.WithCancel(context.Background())
	if err := os.Chmod(d.path, 0o600); err != nil {
		d.close()
		return nil, fmt.Errorf("keeper: open %s: %w", d.path, err)
	}
	d.work.Go(func() { d.serve(asks) })
	return d, nil
}

// clearAway takes away the socket that a keeper before may have left, and nothing else.
func clearAway(path string) error {
	fi, err := os.Lstat(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if fi.Mode().Type() != os.ModeSocket {
		return errors.New("something that is no socket has this name, where upgrades are asked for: move it out of the node's state folder")
	}
	return os.Remove(path)
}

// within gives f a short path of the door in dir: an address has room for 107 bytes.
func within(dir string, f func(short string) error) error {
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return f(fmt.Sprintf("/proc/self/fd/%d/%s", fd, doorName))
}

func (d *door) close() {
	if d == nil {
		return
	}
	d.stop()
	_ = d.listener.Close()
	_ = os.Remove(d.path)
	d.work.Wait()
}

func (d *door) serve(asks chan<- ask) {
	for {
		c, err := d.listener.AcceptUnix()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			time.Sleep(100 * time.Millisecond) // out of descriptors, say
			continue
		}
		select {
		case d.seats <- struct{}{}:
			d.work.Go(func() {
				defer func() { <-d.seats }()
				d.hear(c, asks)
			})
		default:
			_ = c.Close()
		}
	}
}

// hear passes one wish on.
func (d *door) hear(c *net.UnixConn, asks chan<- ask) {
	l := &link{conn: c}
	_ = c.SetReadDeadline(time.Now().Add(askLimit))
	m, f, err := l.receive()
	for err == nil && m.kind == hello {
		m, f, err = l.receive()
	}
	if err != nil || m.kind != upgrade {
		if f != nil {
			f.Close()
		}
		l.close()
		return
	}
	if err := admit(c); err != nil { // after reading: closing with something unread would swallow the answer
		if f != nil {
			f.Close()
		}
		lastWord(l, notStarted, err.Error())
		return
	}
	select {
	case asks <- ask{program: f, asker: l}:
	case <-d.done.Done():
		if f != nil {
			f.Close()
		}
		lastWord(l, notStarted, "the node is being stopped")
	}
}

// admit lets in root and our own user, except processes that can never gain
// privileges again, as the jails of servers and helpers are, and except our children.
func admit(c *net.UnixConn) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var who *unix.Ucred
	var failed error
	if err := raw.Control(func(fd uintptr) { who, failed = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) }); err != nil || failed != nil {
		return errors.Join(err, failed)
	}
	if who.Uid != 0 && int(who.Uid) != os.Geteuid() {
		return fmt.Errorf("user %d may not do that: run it as root or as the node's user", who.Uid)
	}
	jailed, err := isJailed(int(who.Pid))
	if err != nil {
		return fmt.Errorf("process %d cannot be looked at: %w", who.Pid, err)
	}
	if jailed {
		return fmt.Errorf("process %d is one that the node runs, or can gain no privileges (no_new_privs): send SIGHUP to the keeper instead", who.Pid)
	}
	return nil
}

// isJailed reports whether a process or one that started it is our child, or it has no_new_privs.
func isJailed(pid int) (bool, error) {
	for at, depth := pid, 0; at > 1 && depth < 64; depth++ {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", at))
		if err != nil {
			return false, err
		}
		parent, noPrivs := statusOf(string(b))
		if parent == os.Getpid() || at == pid && noPrivs {
			return true, nil
		}
		at = parent
	}
	return false, nil
}

func statusOf(text string) (parent int, noNewPrivs bool) {
	for line := range strings.Lines(text) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		switch name {
		case "PPid":
			parent, _ = strconv.Atoi(strings.TrimSpace(value)) // the kernel writes a number
		case "NoNewPrivs":
			noNewPrivs = strings.TrimSpace(value) == "1"
		}
	}
	return parent, noNewPrivs
}

// What Ask may fail with, wrapped.
var (
	// ErrNobody: no keeper runs on that folder.
	ErrNobody = errors.New("no node runs on that folder")
	// ErrKept: the upgrade was not made, and all is as it was.
	ErrKept = errors.New("not upgraded")
	// ErrBusy: it was not begun, because another one is under way; the text says how far that is.
	ErrBusy = fmt.Errorf("%w now", ErrKept)
	// ErrLeft: the keeper goes on, and nobody waits for what comes of it.
	ErrLeft = errors.New("not waited for: the upgrade goes on; the node's own log tells what comes of it")
	// ErrHalf: the server was upgraded, its keeper was not.
	ErrHalf = errors.New("half upgraded")
)

// Runs reports whether a keeper runs on that folder. Who may not speak to it learns of none.
func Runs(dir string) bool {
	var c net.Conn
	err := within(dir, func(short string) (err error) {
		c, err = net.Dial("unixpacket", short)
		return err
	})
	if err != nil {
		return false
	}
	_ = c.Close() // nothing was said
	return true
}

// Ask has the keeper of the node with that state folder upgrade, and waits for
// what comes of it. Program nil is the one that is installed; told hears of each
// stage. It returns the program that now serves.
func Ask(ctx context.Context, dir string, program *os.File, told func(Stage)) (string, error) {
	var c net.Conn
	err := within(dir, func(short string) (err error) {
		c, err = (&net.Dialer{}).DialContext(ctx, "unixpacket", short)
		return err
	})
	if err != nil {
		return "", fmt.Errorf("%w (%s): %w", ErrNobody, dir, err)
	}
	l := &link{conn: c.(*net.UnixConn)}
	defer l.close()
	defer context.AfterFunc(ctx, l.close)()
	if err := l.send(message{kind: upgrade}, program); err != nil {
		return "", err
	}
	for {
		m, f, err := l.receive()
		if err != nil && ctx.Err() != nil {
			return "", fmt.Errorf("%w (%w)", ErrLeft, context.Cause(ctx))
		}
		if errors.Is(err, io.EOF) {
			return "", fmt.Errorf("%w: the keeper is gone, or was stopped, before it could say what came of it: see its log", ErrKept)
		}
		if err != nil {
			return "", err
		}
		switch m.kind {
		case stage:
			told(Stage(m.number))
		case verdict:
			return judge(m.number, textOf(f))
		}
	}
}

func judge(verdictIs uint64, text string) (string, error) {
	switch verdictIs {
	case wentWell:
		return text, nil
	case wentHalf:
		return "", fmt.Errorf("%w: %s", ErrHalf, text)
	case busy:
		return "", fmt.Errorf("%w: %s", ErrBusy, text)
	default:
		return "", fmt.Errorf("%w: %s", ErrKept, text)
	}
}

// textOf reads and closes f; nil is no text.
func textOf(f *os.File) string {
	if f == nil {
		return ""
	}
	defer f.Close()
	const most = 64 << 10
	b, err := sealed.Read(f, most)
	if err != nil {
		return ""
	}
	return string(b)
}
