package api

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/selvage-edge/selvage/control/identity"
)

const watchOf = "/v1/projects/default/kv/links/watch"

// watcher reads a watch.
type watcher struct {
	t    *testing.T
	in   *bufio.Scanner
	resp *http.Response
}

func (f *fixture) watch(query string) *watcher {
	f.Helper()
	// The test's own end would come before the watch's is looked at.
	r, err := http.NewRequestWithContext(context.Background(), http.MethodGet, f.url+watchOf+"?follow=true"+query, nil)
	if err != nil {
		f.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+f.created.AdminToken)
	resp, err := f.client.Do(r)
	if err != nil || resp.StatusCode != 200 {
		f.Fatal(resp, err)
	}
	w := &watcher{f.T, bufio.NewScanner(resp.Body), resp}
	w.in.Buffer(nil, 1<<20)
	f.Cleanup(w.leave)
	return w
}

func (w *watcher) leave() { w.resp.Body.Close() }

// any returns the next line.
func (w *watcher) any() (e WatchEvent) {
	w.t.Helper()
	if !w.in.Scan() {
		w.t.Fatal("the watch ended: ", w.in.Err())
	}
	if err := json.Unmarshal(w.in.Bytes(), &e); err != nil {
		w.t.Fatalf("%s: %v", w.in.Bytes(), err)
	}
	return e
}

// next returns the next line that is no sign of life.
func (w *watcher) next() WatchEvent {
	w.t.Helper()
	for {
		if e := w.any(); e.Type != WatchAlive {
			return e
		}
	}
}

func (w *watcher) want(kind, key, value string, rev uint64) WatchEvent {
	w.t.Helper()
	e := w.next()
	if e.Type != kind || string(e.Key) != key || string(e.Value) != value || rev > 0 && e.Revision != rev {
		w.t.Fatalf("%+v, want %s of %q %q at %d", e, kind, key, value, rev)
	}
	return e
}

func (f *fixture) put(key, value string, head ...string) uint64 {
	f.Helper()
	var w Written
	f.want(200, f.admin("PUT", keysOf+"/"+escape(key), []byte(value), head...), &w)
	return w.Revision
}

// elsewhere writes a key of another namespace.
func (f *fixture) elsewhere(key string) uint64 {
	f.Helper()
	var w Written
	f.want(200, f.admin("PUT", "/v1/projects/default/kv/other", nil), nil)
	f.want(200, f.admin("PUT", "/v1/projects/default/kv/other/keys/"+key, []byte("v")), &w)
	return w.Revision
}

func TestWatchTellsChangesAsTheyCome(t *testing.T) {
	f := withNamespace(t)
	f.put("before", "0")
	w := f.watch("")
	first := w.next()
	if first.Type != WatchOpen || first.Epoch != f.store.Epoch() || first.Time.IsZero() {
		t.Fatalf("%+v", first)
	}
	a := f.put("a", "1", metadataHeader([]byte("m")))
	if e := w.want(WatchPut, "a", "1", a); e.Text != "a" || e.Size != 1 || string(e.Metadata) != "m" || !e.Expires.IsZero() {
		t.Errorf("%+v", e)
	}
	f.elsewhere("a")
	b := f.put("\xff", "")
	if e := w.want(WatchPut, "\xff", "", b); e.Text != "" {
		t.Errorf("%+v", e)
	}
	var gone Written
	f.want(200, f.admin("DELETE", keysOf+"/a", nil), &gone)
	w.want(WatchDelete, "a", "", gone.Revision)
	f.want(200, f.admin("PUT", keysOf+"/short?ttl=50ms", []byte("v")), nil)
	if e := w.want(WatchPut, "short", "v", 0); e.Expires.IsZero() {
		t.Errorf("%+v", e)
	}
	w.want(WatchExpire, "short", "", 0)
	big := strings.Repeat("v", MaxWatchValue+1)
	f.put("big", big)
	if e := w.want(WatchPut, "big", "", 0); int(e.Size) != len(big) {
		t.Errorf("%+v", e)
	}
}

// From a revision on a watcher is told the newest change of each key, in order, by prefix.
func TestWatchGoesOn(t *testing.T) {
	f := withNamespace(t)
	a := f.put("x/a", "1")
	b := f.put("y/b", "2")
	c := f.put("x/c", "3")
	end := f.elsewhere("k")
	all := f.watch("&since=0")
	if e := all.next(); e.Type != WatchOpen || e.Revision != 0 {
		t.Fatalf("%+v", e)
	}
	all.want(WatchPut, "x/a", "1", a)
	all.want(WatchPut, "y/b", "2", b)
	all.want(WatchPut, "x/c", "3", c)
	some := f.watch(fmt.Sprintf("&since=%d&prefix=x/&epoch=%d", a, f.store.Epoch()))
	some.next()
	some.want(WatchPut, "x/c", "3", c)
	// The revision of a write elsewhere is one to go on after as well.
	once := f.admin("GET", fmt.Sprintf("%s?since=%d", watchOf, b), nil)
	var lines []WatchEvent
	for l := range strings.Lines(string(once.body)) {
		var e WatchEvent
		if err := json.Unmarshal([]byte(l), &e); err != nil {
			t.Fatal(err)
		}
		lines = append(lines, e)
	}
	if len(lines) != 3 || lines[1].Revision != c || lines[2].Type != WatchAlive || lines[2].Revision < end {
		t.Errorf("not followed: %+v", lines)
	}
	last := f.watch(fmt.Sprintf("&since=%d", end))
	if e := last.next(); e.Type != WatchOpen || e.Revision != end {
		t.Fatalf("%+v", e)
	}
	d := f.put("x/d", "4")
	for _, w := range []*watcher{all, some, last} {
		w.want(WatchPut, "x/d", "4", d)
	}
}

// Writers at work: a watcher sees the revisions grow, each key's last value, and whoever goes on in the middle the same.
func TestWatchIsInOrder(t *testing.T) {
	f := withNamespace(t)
	w := f.watch("")
	w.next()
	const writers, each = 4, 25
	var wait sync.WaitGroup
	for i := range writers {
		wait.Go(func() {
			for j := range each {
				f.put(fmt.Sprint("k", i), fmt.Sprint(j))
			}
		})
	}
	wait.Wait()
	end := f.put("end", "")
	follow := func(w *watcher, from uint64) (mid uint64, seen map[string]string) {
		seen = map[string]string{}
		for last := from; last < end; {
			e := w.next()
			if e.Revision <= last || e.Type != WatchPut {
				t.Fatalf("%+v after %d", e, last)
			}
			if seen[e.Text], last = string(e.Value), e.Revision; mid == 0 {
				mid = last
			}
		}
		return mid, seen
	}
	mid, seen := follow(w, 0)
	_, again := follow(func() *watcher { w := f.watch(fmt.Sprint("&since=", mid)); w.next(); return w }(), mid)
	for i := range writers {
		k := fmt.Sprint("k", i)
		if seen[k] != fmt.Sprint(each-1) || again[k] != fmt.Sprint(each-1) {
			t.Errorf("%s was %q, again %q", k, seen[k], again[k])
		}
	}
}

// Where changes between cannot be told, it is said, and all there is follows.
func TestWatchSaysAGap(t *testing.T) {
	f := withNamespace(t)
	f.put("a", "1")
	future := f.watch("&since=1000000")
	if e := future.next(); e.Type != WatchGap || !strings.Contains(e.Why, "1000000") {
		t.Fatalf("%+v", e)
	}
	future.want(WatchPut, "a", "1", 0)
	before := f.watch(fmt.Sprintf("&since=1&epoch=%d", f.store.Epoch()-1))
	if e := before.next(); e.Type != WatchGap || !strings.Contains(e.Why, "epoch") {
		t.Fatalf("%+v", e)
	}
	before.want(WatchPut, "a", "1", 0)
}

func TestWatchRefuses(t *testing.T) {
	f := withNamespace(t)
	for _, q := range []string{"?since=x", "?since=-1", "?since=1&epoch=x"} {
		f.refused(400, "invalid-request", f.admin("GET", watchOf+q, nil))
	}
	f.refused(404, "no-namespace", f.admin("GET", "/v1/projects/default/kv/nowhere/watch", nil))
	f.refused(403, "scope", f.as(f.token(identity.ScopeRead, "other"), "GET", watchOf, nil))
	for range maxTokenWatches {
		f.watch("").next()
	}
	p := f.refused(429, "too-many-watchers", f.admin("GET", watchOf, nil))
	if !strings.Contains(p.Hint, "another token") {
		t.Errorf("%+v", p)
	}
}

// A watch shows that it lives, with a revision to go on after, and ends with its token.
func TestWatchLivesAsLongAsItsToken(t *testing.T) {
	f := start(t, func(c *Config) { c.watchAlive = 5 * time.Millisecond })
	f.want(200, f.admin("PUT", "/v1/projects/default/kv/links", nil), nil)
	rev := f.elsewhere("k")
	var made TokenCreated
	f.want(201, f.admin("POST", "/v1/tokens", TokenRequest{Scopes: []identity.Scope{identity.ScopeRead}, Project: "default"}), &made)
	admin := f.created.AdminToken
	f.created.AdminToken = made.Token
	w := f.watch("&since=0")
	f.created.AdminToken = admin
	for e := w.any(); e.Type != WatchAlive || e.Revision < rev; {
		e = w.any()
	}
	f.want(200, f.admin("DELETE", "/v1/tokens/"+made.ID, nil), nil)
	for w.in.Scan() {
	}
	until(t, "it is let go", func() bool { return f.api.watches.count() == 0 })
}

// Who does not read is cut off, and holds nobody up.
func TestWatchCutsOffWhoIsSlow(t *testing.T) {
	f := start(t, func(c *Config) { c.watchWrite = 50 * time.Millisecond })
	f.want(200, f.admin("PUT", "/v1/projects/default/kv/links", nil), nil)
	for i := range 40 {
		f.put(fmt.Sprint(i), strings.Repeat("v", MaxWatchValue))
	}
	f.watch("&since=0") // and nothing of it is read: it is more than a stream of a connection holds
	until(t, "it is cut off", func() bool { return f.api.watches.count() == 0 })
}
