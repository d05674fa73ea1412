package agent

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"golang.org/x/sys/unix"

	"github.com/selvage-edge/selvage/runtime/atomicfile"
	"github.com/selvage-edge/selvage/runtime/function"
	"github.com/selvage-edge/selvage/runtime/jail"
)

// blobTimeout bounds one fetch.
const blobTimeout = 5 * time.Minute

// What is fetched at once. Who waits for a neighbour must not hold up what this
// node fetches for others: two could wait for each other.
const (
	maxFetches = 8  // from control
	maxAsked   = 32 // from neighbours
)

// maxComing is how many bytes neighbours may be sending at once, declared before the first
// comes: until the last did nobody knows whether they are what they should be.
func maxComing() int64 { return jail.Prepare.MaxOutput() }

// neighbourStall is how long a neighbour may send no byte before control is asked.
const neighbourStall = 10 * time.Second

// controlStall is how long control may send no byte before it is asked again later.
const controlStall = 30 * time.Second

// roomWait is how long an answer waits until enough of the others have come. It
// is shorter than the patience of the neighbour that sends (sendLimit).
const roomWait = 10 * time.Second

// fetch gets d from who looks after it in this PoP, and from control if that is
// this node or did not give it.
func (b *blobs) fetch(ctx context.Context, p part) error {
	ctx, cancel := context.WithTimeout(ctx, blobTimeout)
	defer cancel()
	if n, other := b.pop.keeper(string(p.digest)); other {
		if err := b.aside(ctx, n, p); err == nil || ctx.Err() != nil || errors.Is(err, errFull) {
			return err
		}
	}
	return b.fromControl(ctx, p)
}

// neighbourTimeout is how long a neighbour may say that it is still fetching a
// blob itself, or take to send it, before control is asked instead.
const neighbourTimeout = 45 * time.Second

// aside asks a neighbour, for part of the time there is.
func (b *blobs) aside(ctx context.Context, n Neighbour, p part) error {
	some, cancel := context.WithTimeout(ctx, neighbourTimeout)
	defer cancel()
	err := b.fromNeighbour(some, n, p)
	if err != nil && some.Err() != nil && ctx.Err() == nil {
		b.got.detours.Add(1)
		b.onEvent(Event{Kind: Detour, Neighbour: n.Name, Digest: p.digest, Err: fmt.Errorf("not there after %s: %w", neighbourTimeout, err)})
	}
	return err
}

func (b *blobs) fromControl(ctx context.Context, p part) error {
	d := p.digest
	b.setDirect(d, true) // also while it waits for room: neighbours need not ask too
	defer b.setDirect(d, false)
	if err := enter(ctx, b.fetching); err != nil {
		return err
	}
	defer func() { <-b.fetching }()
	inner, cancel := context.WithCancel(ctx)
	defer cancel()
	resp, err := askBlob(inner, b.control, d) // whose head the client waits for only so long
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	stall := time.AfterFunc(controlStall, cancel)
	defer stall.Stop()
	if resp.StatusCode != http.StatusOK {
		return refusal(resp)
	}
	err = p.fits(resp.ContentLength)
	if err == nil {
		err = b.write(d, resp.ContentLength, &paced{resp.Body, stall, controlStall})
	}
	if err != nil && inner.Err() != nil && ctx.Err() == nil {
		err = fmt.Errorf("no byte came for %s: %w", controlStall, err)
	}
	if err != nil {
		return fmt.Errorf("from control: %w", err)
	}
	b.got.control.Add(1)
	return nil
}

func (b *blobs) setDirect(d function.Digest, on bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if on {
		b.mu.direct[d] = true
		return
	}
	delete(b.mu.direct, d)
}

func enter(ctx context.Context, room chan struct{}) error {
	select {
	case room <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// fromNeighbour asks n, again while n is fetching it itself. Who does not answer, or
// answers with other bytes, is blamed; who does not have it is not.
func (b *blobs) fromNeighbour(ctx context.Context, n Neighbour, p part) error {
	if err := enter(ctx, b.asking); err != nil {
		return err
	}
	defer func() { <-b.asking }()
	for {
		again, err := false, errLeftAlone
		if b.pop.trusts(n.Name) { // others may have found out what it is while this one waited
			again, err = b.ask(ctx, n, p)
		}
		switch {
		case err == nil && !again:
			b.got.neighbour.Add(1)
			return nil
		case again:
			if err = pause(ctx, time.Second/4); err == nil {
				continue
			}
		}
		if ctx.Err() == nil {
			b.got.detours.Add(1)
			b.onEvent(Event{Kind: Detour, Neighbour: n.Name, Digest: p.digest, Err: err})
		}
		return err
	}
}

var errLeftAlone = errors.New("it failed or lied meanwhile, and is left alone for a while")

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// ask asks n for p once; again: n is about to have it.
func (b *blobs) ask(ctx context.Context, n Neighbour, p part) (again bool, err error) {
	inner, cancel := context.WithCancel(ctx)
	defer cancel()
	stall := time.AfterFunc(holdAsk+neighbourStall, cancel)
	defer stall.Stop()
	resp, err := askBlob(inner, n.Node, p.digest)
	if err != nil {
		b.blame(ctx, n, &readError{err})
		return false, err
	}
	defer resp.Body.Close()
	switch {
	case resp.StatusCode == http.StatusServiceUnavailable && resp.Header.Get("Retry-After") != "":
		return true, nil
	case resp.StatusCode != http.StatusOK:
		return false, refusal(resp)
	}
	err = b.receive(ctx, p, resp.ContentLength, &paced{resp.Body, stall, neighbourStall})
	b.blame(ctx, n, err)
	return false, err
}

// receive takes what a neighbour sends, if it is not more than there is room for.
func (b *blobs) receive(ctx context.Context, p part, size int64, r *paced) error {
	if err := p.fits(size); err != nil {
		return err
	}
	r.stall.Reset(roomWait + neighbourStall)
	ctx, cancel := context.WithTimeout(ctx, roomWait)
	defer cancel()
	if err := b.coming.Acquire(ctx, size); err != nil {
		return fmt.Errorf("neighbours are sending as much as they may (%d MiB)", maxComing()>>20)
	}
	defer b.coming.Release(size)
	r.stall.Reset(neighbourStall)
	return b.write(p.digest, size, r)
}

// blame has n left alone if err is its doing: not if a disk of ours is full, nor if
// the release is not wanted any more.
func (b *blobs) blame(ctx context.Context, n Neighbour, err error) {
	var from *readError
	if (errors.As(err, &from) || errors.Is(err, errBlob)) && !errors.Is(ctx.Err(), context.Canceled) {
		b.pop.Blame(n.Name, err)
	}
}

// fits refuses a size that is not declared (-1) or that p cannot have.
func (p part) fits(size int64) error {
	switch {
	case size < 0:
		return fmt.Errorf("%w: their number is not declared", errBlob)
	case size > p.most:
		return fmt.Errorf("%w: %d of them are declared, it has at most %d", errBlob, size, p.most)
	}
	return nil
}

func askBlob(ctx context.Context, whom Doer, d function.Digest) (*http.Response, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, blobsPath+"/"+string(d), nil)
	if err != nil {
		return nil, err
	}
	return whom.Do(r)
}

// paced puts off the end with each piece that comes, and marks what goes wrong on this side.
type paced struct {
	r     io.Reader
	stall *time.Timer
	quiet time.Duration // between two pieces
}

type readError struct{ error }

func (e *readError) Unwrap() error { return e.error }

func (p *paced) Read(b []byte) (int, error) {
	p.stall.Reset(p.quiet)
	n, err := p.r.Read(b)
	if err != nil && !errors.Is(err, io.EOF) {
		err = &readError{err}
	}
	return n, err
}

// write takes d's bytes from r and gives them their name only if they are d's.
func (b *blobs) write(d function.Digest, size int64, r io.Reader) error {
	f, err := atomicfile.Create(b.dir)
	if err != nil {
		return err
	}
	defer f.Discard()
	if err := allot(f, size); err != nil {
		return err
	}
	sum := sha256.New()
	n, err := io.Copy(io.MultiWriter(f, sum), io.LimitReader(r, size+1))
	switch {
	case err != nil:
		return err
	case n != size:
		return fmt.Errorf("%w: %d of them, %d were declared", errBlob, n, size)
	case hex.EncodeToString(sum.Sum(nil)) != d.Hex():
		return fmt.Errorf("%w: %d of them", errBlob, n)
	}
	return f.Commit(d.Hex())
}

// errFull means that there is no room on this node's disk.
var errFull = errors.New("the disk is full")

// allot takes the space for size bytes of f at once, so that what others take
// meanwhile is seen, if it leaves a twentieth of the volume free, or a GiB.
func allot(f *atomicfile.File, size int64) error {
	err := fallocate(f, size)
	allotted := err == nil
	if err != nil && !errors.Is(err, unix.EOPNOTSUPP) && !errors.Is(err, unix.ENOSPC) {
		return fmt.Errorf("take %d bytes of disk: %w", size, err)
	}
	var st unix.Statfs_t
	if serr := unix.Fstatfs(int(f.Fd()), &st); serr != nil {
		return fmt.Errorf("free space of %s: %w", f.Name(), serr)
	}
	free, total := int64(st.Bavail)*st.Bsize, int64(st.Blocks)*st.Bsize
	if !allotted {
		free -= size
	}
	if reserve := min(1<<30, total/20); free < reserve {
		return fmt.Errorf("%w: with these %d KiB the volume of the state folder would have %d MiB free, at least %d stay free: make room or give it a larger volume",
			errFull, size>>10, free>>20, reserve>>20)
	}
	return nil
}

func fallocate(f *atomicfile.File, size int64) error {
	if size == 0 {
		return nil
	}
	for {
		if err := unix.Fallocate(int(f.Fd()), 0, 0, size); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}
