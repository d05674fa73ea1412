package api

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/selvage-edge/selvage/runtime/hostcall"
	"github.com/selvage-edge/selvage/runtime/quota"
)

// large is a body of so many bytes that is made as it is read.
type large struct {
	left, read int64
	sum        hash.Hash
	read4      func(begun bool) // told when 4 MiB are read, and at the end; may be nil
}

func newLarge(size int64) *large { return &large{left: size, sum: sha256.New()} }

func (l *large) Read(b []byte) (int, error) {
	if l.left == 0 {
		return 0, io.EOF
	}
	n := min(int64(len(b)), l.left)
	for i := range b[:n] {
		b[i] = byte((l.left - int64(i)) * 2654435761 >> 13)
	}
	before := l.read
	l.left, l.read = l.left-n, l.read+n
	l.sum.Write(b[:n])
	if l.read4 != nil && before < 4<<20 && l.read >= 4<<20 {
		l.read4(true)
	}
	if l.read4 != nil && l.left == 0 {
		l.read4(false)
	}
	return int(n), nil
}

// putLarge writes a value; size below 0 says no length.
func (f *fixture) putLarge(key string, l *large, size int64) answer {
	f.Helper()
	req, err := http.NewRequestWithContext(f.Context(), "PUT", f.url+keysOf+"/"+key, io.NopCloser(l))
	if err != nil {
		f.Fatal(err)
	}
	req.ContentLength = size
	req.Header.Set("Authorization", "Bearer "+f.created.AdminToken)
	resp, err := f.client.Do(req)
	if err != nil {
		f.Error(err)
		return answer{Response: &http.Response{Request: req}}
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		f.Error(err)
	}
	return answer{resp, b}
}

// A value of exactly the limit is taken and given back byte for byte; one byte more is refused, whether or not
// its length was said.
func TestLargestValue(t *testing.T) {
	f := start(t)
	f.want(200, f.admin("PUT", "/v1/projects/default/kv/links", nil), nil)
	for key, size := range map[string]int64{"known": hostcall.MaxValueBytes, "unknown": -1} {
		l := newLarge(hostcall.MaxValueBytes)
		f.want(200, f.putLarge(key, l, size), nil)
		got := f.admin("GET", keysOf+"/"+key, nil)
		if sum := sha256.Sum256(got.body); got.StatusCode != 200 || len(got.body) != hostcall.MaxValueBytes || string(sum[:]) != string(l.sum.Sum(nil)) {
			t.Errorf("%s: %d, %d bytes, not what was put", key, got.StatusCode, len(got.body))
		}
		if size > 0 {
			size++
		}
		f.refused(413, "too-large", f.putLarge(key, newLarge(hostcall.MaxValueBytes+1), size))
		if e := f.admin("GET", keysOf+"/"+key, nil); len(e.body) != hostcall.MaxValueBytes {
			t.Errorf("%s: a value that was refused took the place of another: %d bytes", key, len(e.body))
		}
	}
}

// Large values wait for room before any of them is read, all over one connection; so many are read at once as there is
// room for, and each is taken in its turn.
func TestManyLargeValuesTakeTurns(t *testing.T) {
	const size, many = 6 << 20, 16
	f := start(t, func(c *Config) { c.BodyBytes, c.BodyWait = 2*2*copiesWritten*size, 5*time.Minute }) // two of one caller
	f.want(200, f.admin("PUT", "/v1/projects/default/kv/links", nil), nil)
	var now, most atomic.Int64
	var all sync.WaitGroup
	for i := range many {
		l := newLarge(size)
		l.read4 = func(begun bool) {
			if !begun {
				now.Add(-1)
				return
			}
			n := now.Add(1)
			for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
			}
		}
		all.Go(func() {
			if a := f.putLarge(fmt.Sprint("k", i), l, size); a.StatusCode != 200 {
				t.Errorf("value %d: %d %s", i, a.StatusCode, a.body)
			}
		})
	}
	all.Wait()
	if most.Load() > 2 {
		t.Errorf("%d values were read at once, and there is room for 2", most.Load())
	}
	if n := f.api.bodies.Owners(); n != 0 {
		t.Errorf("%d still hold room", n)
	}
}

// What finds no room in time is refused, says so, and has done nothing; others go on.
func TestLargeValueWithoutRoom(t *testing.T) {
	const size = 6 << 20
	f := start(t, func(c *Config) { c.BodyBytes, c.BodyWait = 2*copiesWritten*size, 50*time.Millisecond })
	f.want(200, f.admin("PUT", "/v1/projects/default/kv/links", nil), nil)
	body, feed := io.Pipe()
	held := make(chan answer, 1)
	go func() { held <- f.admin("PUT", keysOf+"/held", io.LimitReader(body, size)) }() // of no length that is said: it takes all of the caller's room
	if _, err := feed.Write(make([]byte, 2<<20)); err != nil {
		t.Fatal(err)
	}
	a := f.putLarge("late", newLarge(size), size)
	if f.refused(503, "busy", a); a.Header.Get("Retry-After") == "" {
		t.Errorf("head %v", a.Header)
	}
	if a := f.admin("GET", keysOf+"/late", nil); a.StatusCode != 404 {
		t.Errorf("what was refused was written: %d", a.StatusCode)
	}
	f.want(200, f.admin("PUT", keysOf+"/small", []byte("s")), nil)
	go func() { io.Copy(feed, newLarge(size)); feed.Close() }()
	f.want(200, <-held, nil)
	f.want(200, f.putLarge("late", newLarge(size), size), nil)
	body.Close()
}

// Of one caller's large bodies only so many hold or wait for room, since each that waits has a window full meanwhile:
// together no more than the caller may hold, or one connection.
func TestBodiesThatWaitAreBounded(t *testing.T) {
	for bytes, most := range map[int64]int{1 << 20: maxStreams, 512 << 20: 256 << 20 / streamWindow} {
		p := newBodies(bytes)
		for range most {
			s, err := p.Take(t.Context(), "one", 1)
			if err != nil {
				t.Fatal(err)
			}
			defer s.Release()
		}
		if _, err := p.Take(t.Context(), "one", 1); !errors.Is(err, quota.ErrOwn) {
			t.Errorf("of %d bytes one more than %d: %v", bytes, most, err)
		}
		other, err := p.Take(t.Context(), "two", 1)
		if err != nil {
			t.Error(err)
		}
		other.Release()
	}
}
