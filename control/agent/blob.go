package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/selvage-edge/selvage/control/catalog"
	"github.com/selvage-edge/selvage/runtime/atomicfile"
	"github.com/selvage-edge/selvage/runtime/function"
	"github.com/selvage-edge/selvage/runtime/jail"
)

// errBlob means that bytes are not those their digest names.
var errBlob = errors.New("the bytes are not those of their digest")

// part is a blob that a release names.
type part struct {
	digest function.Digest
	most   int64 // bytes it can have: whatever is larger could not be made, nor run
}

func partsOf(r catalog.Release) (code, image part) {
	return part{r.Code, jail.Compile.MaxInput()}, part{r.Image, jail.Prepare.MaxOutput()}
}

// blobs are codes and images on disk, by digest. A file is whole and synced
// before it has its name, and checked again each time it is read.
type blobs struct {
	dir      string
	control  Doer
	pop      *pop
	onEvent  func(Event)
	fetching chan struct{}       // room for fetches from control
	asking   chan struct{}       // room for asks of neighbours
	coming   *semaphore.Weighted // bytes that neighbours may be sending
	sent     atomic.Int64        // blobs that neighbours got here
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
	b := &blobs{dir: dir, control: control, pop: p, onEvent: onEvent, fetching: make(chan struct{}, maxFetches), asking: make(chan struct{}, maxAsked), coming: semaphore.NewWeighted(maxComing())}
	b.mu.busy = map[function.Digest]chan struct{}{}
	b.mu.direct = map[function.Digest]bool{}
	b.mu.unused = map[function.Digest]time.Time{}
	if err := atomicfile.Sweep(dir); err != nil { // fetches that a crash broke off
		return nil, fmt.Errorf("open blobs: %w", err)
	}
	return b, nil
}

func (b *blobs) path(d function.Digest) string { return filepath.Join(b.dir, d.Hex()) }

// blobError is that a blob could not be had.
type blobError struct{ error }

func (e *blobError) Unwrap() error { return e.error }

// of returns what gets p, for whoever needs it again later; it fails with a *blobError.
func (b *blobs) of(p part) func(context.Context) ([]byte, error) {
	return func(ctx context.Context) ([]byte, error) {
		data, err := b.get(ctx, p)
		if err != nil {
			return nil, &blobError{err}
		}
		return data, nil
	}
}

// get returns the bytes of p, checked: from disk, or else from a neighbour or control.
func (b *blobs) get(ctx context.Context, p part) ([]byte, error) {
	d := p.digest
	if _, err := function.ParseDigest(string(d)); err != nil {
		return nil, err
	}
	unlock, err := b.lock(ctx, d)
	if err != nil {
		return nil, err
	}
	defer unlock()
	data, err := b.read(p)
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
	if err := b.fetch(ctx, p); err != nil {
		return nil, fmt.Errorf("fetch blob %s: %w", d.Short(), err)
	}
	return b.read(p)
}

// has returns what reports whether p is on disk.
func (b *blobs) has(p part) func() bool {
	return func() bool {
		_, err := os.Stat(b.path(p.digest))
		return err == nil
	}
}

// ensure makes sure that p is on disk, without a look at its bytes.
func (b *blobs) ensure(ctx context.Context, p part) error {
	d := p.digest
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
	if err := b.fetch(ctx, p); err != nil {
		return fmt.Errorf("fetch blob %s: %w", d.Short(), err)
	}
	return nil
}

// ensured returns what has p on disk when it is needed again; it fails with a *blobError.
func (b *blobs) ensured(p part) func(context.Context) error {
	return func(ctx context.Context) error {
		if err := b.ensure(ctx, p); err != nil {
			return &blobError{err}
		}
		return nil
	}
}

// scrub reads all of parts once, so that what rotted is fetched again while it can be and
// not missed when it is needed: a node that starts loads nothing that nobody asks for. It
// takes a tenth of the time at most, which is for requests.
func (b *blobs) scrub(ctx context.Context, parts []part) {
	seen := map[function.Digest]bool{}
	for _, p := range parts {
		if seen[p.digest] {
			continue
		}
		seen[p.digest] = true
		began := time.Now()
		_, _ = b.get(ctx, p) // said; what cannot be fetched now is when it is needed
		select {
		case <-time.After(9 * time.Since(began)):
		case <-ctx.Done():
			return
		}
	}
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

func (b *blobs) read(p part) ([]byte, error) {
	f, err := os.Open(b.path(p.digest))
	if err != nil {
		return nil, fmt.Errorf("read blob: %w", err)
	}
	defer f.Close()
	i, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("read blob: %w", err)
	}
	data := make([]byte, min(i.Size(), p.most))
	if _, err := io.ReadFull(f, data); err != nil {
		return nil, fmt.Errorf("read blob: %w", err)
	}
	if function.DigestOf(data) != p.digest {
		return nil, fmt.Errorf("read blob %s: %w", p.digest.Short(), errBlob)
	}
	return data, nil
}

// rotten tells of bytes that are not what they were.
func (b *blobs) rotten(d function.Digest, err error) {
	b.onEvent(Event{Kind: Rotten, Digest: d, Err: err})
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
