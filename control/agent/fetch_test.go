package agent

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sync/semaphore"
	"golang.org/x/sys/unix"

	"github.com/selvage-edge/selvage/runtime/function"
	"github.com/selvage-edge/selvage/runtime/tooltest"
)

// endless gives bytes for ever, and counts them.
type endless struct{ given *atomic.Int64 }

func (e endless) Read(b []byte) (int, error) {
	e.given.Add(int64(len(b)))
	return rand.Read(b)
}

func (endless) Close() error { return nil }

// flooder is a way to a neighbour that answers each ask for a blob with bytes
// without end, and declares some number of them.
type flooder struct {
	Doer
	declares     int64
	asked, given *atomic.Int64
}

func (f flooder) Do(r *http.Request) (*http.Response, error) {
	if !strings.Contains(r.URL.Path, "/blobs/") {
		return f.Doer.Do(r)
	}
	f.asked.Add(1)
	return &http.Response{StatusCode: 200, Header: http.Header{}, ContentLength: f.declares, Body: endless{f.given}}, nil
}

// A neighbour that sends other bytes than it declares, or declares what no blob can have, fills no
// disk: no more is read than a blob may have, nothing is left, and it is asked once only.
func TestANeighbourThatFloods(t *testing.T) {
	for name, declares := range map[string]int64{"without a number": -1, "too many": 1 << 40, "more than declared": 100 << 10} {
		t.Run(name, func(t *testing.T) {
			s := newStreet(t, 2)
			leader, others := s.meant("log catalog")
			s.grouped(leader, others...)
			h := others[0]
			var asked, given atomic.Int64
			s.mu.Lock()
			h.wrap = func(d Doer) Doer { return flooder{d, declares, &asked, &given} }
			s.mu.Unlock()
			for i := range 8 {
				s.deploy(fmt.Sprint("f", i), routeOf(fmt.Sprintf("f%d.example", i)), fmt.Sprint("code ", i))
				h.serves(fmt.Sprintf("f%d.example", i), fmt.Sprint("code ", i))
			}
			if asked.Load() != 1 || given.Load() > 256<<10 {
				t.Errorf("it was asked %d times, and %d bytes of it were read", asked.Load(), given.Load())
			}
			files, err := os.ReadDir(filepath.Join(h.dir, "blobs"))
			if err != nil || slices.ContainsFunc(files, func(f os.DirEntry) bool { return strings.HasPrefix(f.Name(), ".new-") }) {
				t.Errorf("left: %v, %v", files, err)
			}
		})
	}
}

// stalled is a neighbour that declares size bytes and sends them when it is told to.
type stalled struct {
	data []byte
	goOn chan struct{}
	held *atomic.Int64
}

func (s stalled) Do(r *http.Request) (*http.Response, error) {
	return &http.Response{StatusCode: 200, ContentLength: int64(len(s.data)), Body: &stalledBody{s, r.Context(), bytes.NewReader(s.data), sync.Once{}}}, nil
}

type stalledBody struct {
	stalled
	ctx  context.Context
	r    io.Reader
	once sync.Once
}

func (s *stalledBody) Read(b []byte) (int, error) {
	s.once.Do(func() { s.held.Add(int64(len(s.data))) })
	select {
	case <-s.goOn:
		return s.r.Read(b)
	case <-s.ctx.Done():
		return 0, s.ctx.Err()
	}
}

func (*stalledBody) Close() error { return nil }

// What neighbours may be sending at once is bounded in bytes; who has to wait for
// room for long is not to blame, and control is asked.
func TestBytesInFlightAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var blamed atomic.Int64
		events := func(e Event) {
			if e.Kind == Distrusted {
				blamed.Add(1)
			}
		}
		b, err := openBlobs(t.TempDir(), nil, newPop("n1", nil, events), events)
		if err != nil {
			t.Fatal(err)
		}
		b.coming = semaphore.NewWeighted(100)
		var held atomic.Int64
		goOn := make(chan struct{})
		ask := func(data string) error {
			d := []byte(data)
			return b.fromNeighbour(t.Context(), Neighbour{Name: data, Node: stalled{d, goOn, &held}}, part{function.DigestOf(d), 100})
		}
		first, second := make(chan error, 1), make(chan error, 1)
		go func() { first <- ask(strings.Repeat("a", 60)) }()
		synctest.Wait()
		go func() { second <- ask(strings.Repeat("b", 60)) }()
		synctest.Wait()
		if held.Load() != 60 {
			t.Errorf("%d bytes are coming; at most 100 may", held.Load())
		}
		time.Sleep(neighbourStall - time.Second)
		close(goOn)
		if err := <-first; err != nil {
			t.Errorf("the first: %v", err)
		}
		if err := <-second; err != nil {
			t.Errorf("the second: %v", err)
		}
		if !b.coming.TryAcquire(100) { // and nobody gives it back, as a neighbour that stalls would just then
			t.Fatal("both have come, and there is no room")
		}
		if err := ask(strings.Repeat("c", 60)); err == nil || !strings.Contains(err.Error(), "as much as they may") {
			t.Errorf("without room: %v", err)
		}
		if blamed.Load() != 0 {
			t.Errorf("%d were blamed", blamed.Load())
		}
	})
}

// A control node that stops in the middle does not hold one of the few places for long.
func TestControlThatStalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var held atomic.Int64
		b, err := openBlobs(t.TempDir(), stalled{[]byte("x"), make(chan struct{}), &held}, newPop("n1", nil, nil), nil)
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		err = b.ensure(t.Context(), part{codeOf("x"), 100})
		if err == nil || !strings.Contains(err.Error(), "no byte came") || time.Since(began) != controlStall {
			t.Errorf("after %v: %v", time.Since(began), err)
		}
	})
}

// A release that is not wanted any more is no neighbour's fault.
func TestNobodyIsBlamedForWhatWeGaveUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var blamed atomic.Int64
		events := func(e Event) {
			if e.Kind == Distrusted {
				blamed.Add(1)
			}
		}
		b, err := openBlobs(t.TempDir(), nil, newPop("n1", nil, events), events)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		var held atomic.Int64
		err = b.fromNeighbour(ctx, Neighbour{Name: "n2", Node: stalled{[]byte("x"), make(chan struct{}), &held}}, part{codeOf("x"), 100})
		if err == nil || blamed.Load() != 0 {
			t.Errorf("%v; %d were blamed", err, blamed.Load())
		}
	})
}

// No blob takes the last of a disk.
func TestTheDiskIsNotFilled(t *testing.T) {
	dir := t.TempDir()
	const volume = 8 << 20
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprint("size=", volume)); err != nil {
		tooltest.Need(t, fmt.Sprintf("mount a small volume: %v: run it as root", err))
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	b, err := openBlobs(dir, nil, newPop("n1", nil, nil), nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, size := range []int{1 << 20, volume - 1<<10, 2 * volume, volume - 1<<20} {
		data := bytes.Repeat([]byte{1}, size)
		d := function.DigestOf(data)
		err := b.write(d, int64(size), bytes.NewReader(data))
		if fits := size <= volume-1<<20; fits && err != nil || !fits && !errors.Is(err, errFull) {
			t.Errorf("%d KiB of %d: %v", size>>10, volume>>10, err)
		}
		if err == nil {
			if err := os.Remove(b.path(d)); err != nil {
				t.Fatal(err)
			}
		}
		if files, err := os.ReadDir(dir); err != nil || len(files) != 0 {
			t.Errorf("left: %v, %v", files, err)
		}
	}
}
