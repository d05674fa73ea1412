package agent

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/selvage-edge/selvage/runtime/function"
)

// maxBlobBytes bounds what control may send: the largest image there can be, and its frame.
const maxBlobBytes = 1<<30 + 1<<24

// blobTimeout bounds one fetch.
const blobTimeout = 5 * time.Minute

// What is fetched at once. Who waits for a neighbour must not hold up what this
// node fetches for others: two could wait for each other.
const (
	maxFetches = 8  // from control
	maxAsked   = 32 // from neighbours
)

// What a neighbour has to do for a blob not to be asked of control.
const (
	neighbourStall = 10 * time.Second // without a byte
	neighbourLimit = 2 * time.Minute  // for all of it, once it comes
)

// errBlob means that bytes are not those their digest names.
var errBlob = errors.New("the bytes are not those of their digest")

// blobs are codes and images on disk, by digest. A file is whole and synced
// before it has its name, and checked again each time it is read.
type blobs struct {
	dir      string
	control  Doer
	pop      *pop
	onEvent  func(Event)
	fetching chan struct{} // room for fetches from control
	asking   chan struct{} // room for asks of neighbours
	sent     atomic.Int64  // blobs that neighbours got here
	got      struct{ control, neighbour, detours atomic.Int64 }
	mu       struct {
		sync.Mutex
		busy   map[function.Digest]chan struct{} // being fetched; closed afterwards
		direct map[function.Digest]bool          // those that control is asked for
		unused map[function.Digest]time.Time     // since when no release names it
	}
}

func openBlobs(dir string, control Doer, p *pop, onEvent func(Event)) (*blobs, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("open blobs: %w", err)
	}
	b := &blobs{dir: dir, control: control, pop: p, onEvent: onEvent, fetching: make(chan struct{}, maxFetches), asking: make(chan struct{}, maxAsked)}
	b.mu.busy = map[function.Digest]chan struct{}{}
	b.mu.direct = map[function.Digest]bool{}
	b.mu.unused = map[function.Digest]time.Time{}
	files, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("open blobs: %w", err)
	}
	for _, f := range files {
		if strings.HasPrefix(f.Name(), ".new-") && abandoned(filepath.Join(dir, f.Name())) { // a fetch that a crash broke off
			err = errors.Join(err, os.Remove(filepath.Join(dir, f.Name())))
		}
	}
	if err != nil {
		return nil, fmt.Errorf("open blobs: %w", err)
	}
	return b, nil
}

// abandoned reports whether nobody writes that file any more: who does has it
// locked. While a node is upgraded two of its servers fetch into one folder.
func abandoned(path string) bool {
	f, err := os.Open(path)
	if err != nil {
		return !errors.Is(err, fs.ErrNotExist)
	}
	defer f.Close()
	return unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil
}

func (b *blobs) path(d function.Digest) string { return filepath.Join(b.dir, d.Hex()) }

// get returns the bytes of d, checked: from disk, or else from a neighbour or control.
func (b *blobs) get(ctx context.Context, d function.Digest) ([]byte, error) {
	if _, err := function.ParseDigest(string(d)); err != nil {
		return nil, err
	}
	unlock, err := b.lock(ctx, d)
	if err != nil {
		return nil, err
	}
	defer unlock()
	data, err := b.read(d)
	if err == nil {
		return data, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		// Bytes that rotted are fetched again; so is a file that cannot be read.
		b.rotten(d, err)
		if rm := os.Remove(b.path(d)); rm != nil {
			return nil, fmt.Errorf("blob %s: %w", d.Short(), errors.Join(err, rm))
		}
	}
	if err := b.fetch(ctx, d); err != nil {
		return nil, fmt.Errorf("fetch blob %s: %w", d.Short(), err)
	}
	return b.read(d)
}

// ensure makes sure that d is on disk, without a look at its bytes.
func (b *blobs) ensure(ctx context.Context, d function.Digest) error {
	if _, err := function.ParseDigest(string(d)); err != nil {
		return err
	}
	unlock, err := b.lock(ctx, d)
	if err != nil {
		return err
	}
	defer unlock()
	if _, err := os.Stat(b.path(d)); err == nil {
		return nil
	}
	if err := b.fetch(ctx, d); err != nil {
		return fmt.Errorf("fetch blob %s: %w", d.Short(), err)
	}
	return nil
}

// lock lets one at a time work on d: two functions with the same code fetch it once.
func (b *blobs) lock(ctx context.Context, d function.Digest) (unlock func(), err error) {
	for {
		b.mu.Lock()
		busy := b.mu.busy[d]
		if busy == nil {
			done := make(chan struct{})
			b.mu.busy[d] = done
			b.mu.Unlock()
			return func() {
				b.mu.Lock()
				delete(b.mu.busy, d)
				b.mu.Unlock()
				close(done)
			}, nil
		}
		b.mu.Unlock()
		select {
		case <-busy:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (b *blobs) read(d function.Digest) ([]byte, error) {
	data, err := os.ReadFile(b.path(d))
	if err != nil {
		return nil, fmt.Errorf("read blob: %w", err)
	}
	if function.DigestOf(data) != d {
		return nil, fmt.Errorf("read blob %s: %w", d.Short(), errBlob)
	}
	return data, nil
}

// rotten tells of bytes that are not what they were.
func (b *blobs) rotten(d function.Digest, err error) {
	b.onEvent(Event{Kind: Rotten, Digest: d, Err: err})
}

// fetch gets d from who looks after it in this PoP, and from control if that is
// this node or did not give it.
func (b *blobs) fetch(ctx context.Context, d function.Digest) error {
	ctx, cancel := context.WithTimeout(ctx, blobTimeout)
	defer cancel()
	if n, other := b.pop.keeper(string(d)); other {
		if err := b.aside(ctx, n, d); err == nil || ctx.Err() != nil {
			return err
		}
	}
	return b.fromControl(ctx, d)
}

// neighbourTimeout is how long a neighbour may say that it is still fetching a
// blob itself, or take to send it, before control is asked instead.
const neighbourTimeout = 45 * time.Second

// aside asks a neighbour, for part of the time there is.
func (b *blobs) aside(ctx context.Context, n Neighbour, d function.Digest) error {
	part, cancel := context.WithTimeout(ctx, neighbourTimeout)
	defer cancel()
	err := b.fromNeighbour(part, n, d)
	if err != nil && part.Err() != nil && ctx.Err() == nil {
		b.got.detours.Add(1)
		b.onEvent(Event{Kind: Detour, Neighbour: n.Name, Digest: d, Err: fmt.Errorf("not there after %s: %w", neighbourTimeout, err)})
	}
	return err
}

func (b *blobs) fromControl(ctx context.Context, d function.Digest) error {
	b.setDirect(d, true) // also while it waits for room: neighbours need not ask too
	defer b.setDirect(d, false)
	if err := enter(ctx, b.fetching); err != nil {
		return err
	}
	defer func() { <-b.fetching }()
	resp, err := askBlob(ctx, b.control, d)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return refusal(resp)
	}
	if err := b.write(d, resp.Body); err != nil {
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
func (b *blobs) fromNeighbour(ctx context.Context, n Neighbour, d function.Digest) error {
	if err := enter(ctx, b.asking); err != nil {
		return err
	}
	defer func() { <-b.asking }()
	for {
		again, err := b.ask(ctx, n, d)
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
			b.onEvent(Event{Kind: Detour, Neighbour: n.Name, Digest: d, Err: err})
		}
		return err
	}
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// ask asks n for d once; again: n is about to have it.
func (b *blobs) ask(ctx context.Context, n Neighbour, d function.Digest) (again bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stall := time.AfterFunc(holdAsk+neighbourStall, cancel)
	defer stall.Stop()
	resp, err := askBlob(ctx, n.Node, d)
	if err != nil {
		b.pop.Blame(n.Name, err)
		return false, err
	}
	defer resp.Body.Close()
	switch {
	case resp.StatusCode == http.StatusServiceUnavailable && resp.Header.Get("Retry-After") != "":
		return true, nil
	case resp.StatusCode != http.StatusOK:
		return false, refusal(resp)
	}
	defer time.AfterFunc(neighbourLimit, cancel).Stop()
	var from *readError
	err = b.write(d, &paced{r: resp.Body, stall: stall})
	if errors.As(err, &from) || errors.Is(err, errBlob) {
		b.pop.Blame(n.Name, err) // and not for a disk of ours that is full
	}
	return false, err
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
}

type readError struct{ error }

func (e *readError) Unwrap() error { return e.error }

func (p *paced) Read(b []byte) (int, error) {
	p.stall.Reset(neighbourStall)
	n, err := p.r.Read(b)
	if err != nil && !errors.Is(err, io.EOF) {
		err = &readError{err}
	}
	return n, err
}

// write takes d's bytes from r and gives them their name only if they are d's.
func (b *blobs) write(d function.Digest, r io.Reader) error {
	f, err := os.CreateTemp(b.dir, ".new-")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // gone by then if all went well
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		return errors.Join(err, f.Close())
	}
	sum := sha256.New()
	n, err := io.Copy(io.MultiWriter(f, sum), io.LimitReader(r, maxBlobBytes+1))
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if n > maxBlobBytes {
		return fmt.Errorf("more than %d bytes: %w", int64(maxBlobBytes), errBlob)
	}
	if hex.EncodeToString(sum.Sum(nil)) != d.Hex() {
		return fmt.Errorf("%d bytes: %w", n, errBlob)
	}
	if err := os.Rename(f.Name(), b.path(d)); err != nil {
		return err
	}
	return syncDir(b.dir)
}

// syncDir makes a rename last.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// sweep removes what has not been in used for grace, and counts what stays.
func (b *blobs) sweep(used map[function.Digest]bool, grace time.Duration) (kept int, err error) {
	files, err := os.ReadDir(b.dir)
	if err != nil {
		return 0, fmt.Errorf("sweep blobs: %w", err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, f := range files {
		d, perr := function.ParseDigest("sha256:" + f.Name())
		if perr != nil {
			continue // being written, or not ours
		}
		if b.stays(d, used[d], grace) {
			kept++
			continue
		}
		err = errors.Join(err, os.Remove(b.path(d)))
	}
	return kept, err
}

// stays notes whether d is used, and reports whether it is to be kept. b.mu is held.
func (b *blobs) stays(d function.Digest, used bool, grace time.Duration) bool {
	if used || b.mu.busy[d] != nil {
		delete(b.mu.unused, d)
		return true
	}
	since, known := b.mu.unused[d]
	if !known {
		b.mu.unused[d] = time.Now()
		return true
	}
	if time.Since(since) < grace {
		return true
	}
	delete(b.mu.unused, d)
	return false
}
