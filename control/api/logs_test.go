package api

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/selvage-edge/selvage/control/identity"
	"github.com/selvage-edge/selvage/control/logs"
	"github.com/selvage-edge/selvage/control/peer"
	"github.com/selvage-edge/selvage/edge/telemetry"
	"github.com/selvage-edge/selvage/runtime/function"
	"github.com/selvage-edge/selvage/runtime/hostcall"
)

// logNode is a node as far as its log goes: a real log behind a real peer server.
type logNode struct {
	name, pop, addr string
	log             *telemetry.Log
	stop            func()
}

func (f *fixture) logNode(id *identity.Node, addr string) *logNode {
	f.Helper()
	p := id.Member.Peer()
	n := &logNode{name: p.Name, pop: p.PoP, log: telemetry.NewLog(io.Discard, telemetry.LogConfig{Place: telemetry.Place{PoP: p.PoP, Node: p.Name}})}
	mux := http.NewServeMux()
	mux.Handle("GET "+logs.Path, logs.Handler(n.log))
	srv, err := peer.NewServer(peer.ServerConfig{Member: id.Member, Handler: mux})
	if err != nil {
		f.Fatal(err)
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		f.Fatal(err)
	}
	n.addr = l.Addr().String()
	var wait sync.WaitGroup
	wait.Go(func() { _ = srv.Serve(l) })
	n.stop = sync.OnceFunc(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		_ = srv.Close(ctx)
		wait.Wait()
		_ = n.log.Close()
	})
	f.Cleanup(n.stop)
	return n
}

func (n *logNode) says(project, fn, text string) {
	n.log.Log(hostcall.Line{Time: time.Now(), Function: function.ID{Project: project, Name: fn}, Text: text})
}

// members is a membership that tests change.
type members struct {
	sync.Mutex
	all []Member
}

func (m *members) set(nodes ...*logNode) {
	m.Lock()
	defer m.Unlock()
	m.all = nil
	for _, n := range nodes {
		m.all = append(m.all, Member{Name: n.name, PoP: n.pop, Peer: n.addr, Alive: true})
	}
}

func (m *members) now() []Member {
	m.Lock()
	defer m.Unlock()
	return slices.Clone(m.all)
}

// texts reads what a log answer holds: "NODE TEXT" for each line.
func texts(t *testing.T, body string) (all []string) {
	t.Helper()
	for line := range strings.Lines(body) {
		if strings.TrimSpace(line) == "" {
			continue
		}
		l, err := telemetry.ParseLine([]byte(line))
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, l.Node+" "+l.Text)
	}
	return all
}

func TestLogsOfAllNodes(t *testing.T) {
	var m members
	f := start(t, func(c *Config) { c.Members = m.now })
	lon, nyc := f.logNode(f.join("lon-1", "lon"), "127.0.0.1:0"), f.logNode(f.join("nyc-1", "nyc"), "127.0.0.1:0")
	m.set(lon, nyc)
	lon.says("default", "a", "one")
	nyc.says("default", "a", "two")
	lon.says("default", "b", "three")
	nyc.says("other", "a", "four")
	nyc.log.Record(&telemetry.Record{Time: time.Now(), Path: "/nowhere", Status: 404, Refused: "no-route"})
	get := func(token, path string) string {
		t.Helper()
		a := f.as(token, "GET", path, nil)
		f.want(200, a, nil)
		return strings.Join(texts(t, string(a.body)), ",")
	}
	const mine = "/v1/projects/default/logs?since=1m"
	for path, want := range map[string]string{
		mine:                       "lon-1 one,nyc-1 two,lon-1 three",
		mine + "&function=a":       "lon-1 one,nyc-1 two",
		mine + "&pop=nyc":          "nyc-1 two",
		mine + "&tail=1":           "lon-1 three",
		mine + "&kind=access":      "",
		mine + "&project=other":    "lon-1 one,nyc-1 two,lon-1 three",
		"/v1/projects/other/logs":  "",
		"/v1/logs?since=1m&tail=2": "nyc-1 four,nyc-1 exchange",
	} {
		if got := get(f.created.AdminToken, path); got != want {
			t.Errorf("%s: %q, want %q", path, got, want)
		}
	}
	if got := get(f.token(identity.ScopeRead, "default"), mine); got != "lon-1 one,nyc-1 two,lon-1 three" {
		t.Errorf("with a token of the project: %q", got)
	}
	f.refused(403, "scope", f.as(f.token(identity.ScopeRead, "default"), "GET", "/v1/logs", nil))
	f.refused(403, "scope", f.as(f.token(identity.ScopeRead, "default"), "GET", "/v1/projects/other/logs", nil))
	f.refused(400, "invalid-request", f.admin("GET", mine+"&level=loud", nil))
	// Nobody but control reads a node's log.
	c, err := peer.NewClient(peer.ClientConfig{Member: f.join("sin-1", "sin").Member, Expect: identity.Expect{Kind: identity.KindNode}, Addresses: []string{lon.addr}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if a := f.send(c, "GET", logs.Path, nil); a.StatusCode != http.StatusForbidden {
		t.Errorf("another node is answered %d", a.StatusCode)
	}
}

// follower reads a stream of lines.
type follower struct {
	t     *testing.T
	lines chan string
}

func (f *fixture) follow(path string) *follower {
	f.Helper()
	r, err := http.NewRequestWithContext(f.Context(), "GET", f.url+path, nil)
	if err != nil {
		f.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+f.created.AdminToken)
	resp, err := f.client.Do(r)
	if err != nil || resp.StatusCode != 200 {
		f.Fatal(resp, err)
	}
	out := &follower{f.T, make(chan string, 10_000)}
	done := make(chan struct{})
	go func() {
		defer close(done)
		in := bufio.NewScanner(resp.Body)
		for in.Scan() {
			if l, err := telemetry.ParseLine(in.Bytes()); err == nil {
				out.lines <- fmt.Sprintf("%s %s %s %s %d", l.Kind, l.Node, l.Function, l.Text, l.Dropped)
			}
		}
	}()
	f.Cleanup(func() { resp.Body.Close(); <-done })
	return out
}

// until waits for a line that holds all of what.
func (f *follower) until(what ...string) string {
	f.t.Helper()
	limit := time.After(30 * time.Second)
	for {
		select {
		case l := <-f.lines:
			if !slices.ContainsFunc(what, func(w string) bool { return !strings.Contains(l, w) }) {
				return l
			}
		case <-limit:
			f.t.Fatalf("never told of %q", what)
		}
	}
}

// Nodes come, go and come back while somebody follows; a flood of one function is
// told of, and hides no other.
func TestFollowingLogs(t *testing.T) {
	var m members
	f := start(t, func(c *Config) { c.Members = m.now })
	lonID, nycID := f.join("lon-1", "lon"), f.join("nyc-1", "nyc")
	lon := f.logNode(lonID, "127.0.0.1:0")
	m.set(lon)
	lon.says("default", "a", "before")
	in := f.follow("/v1/projects/default/logs?follow=true")
	until(t, "it is followed", func() bool { return lon.log.Stats().Follows == 1 })
	lon.says("default", "a", "first")
	if l := in.until("function lon-1 a"); !strings.Contains(l, "first") {
		t.Errorf("the past was told unasked: %s", l)
	}
	nyc := f.logNode(nycID, "127.0.0.1:0")
	m.set(lon, nyc)
	in.until("note nyc-1", "came")
	until(t, "the new node is followed", func() bool { return nyc.log.Stats().Follows == 1 })
	for range 20_000 {
		nyc.says("default", "loud", "noise")
	}
	nyc.says("default", "quiet", "heard")
	in.until("function nyc-1 quiet heard")
	in.until("dropped nyc-1 loud")

	nyc.stop()
	in.until("note nyc-1", "not heard")
	back := f.logNode(nycID, nyc.addr)
	back.says("default", "a", "I am back")
	in.until("I am back")
	until(t, "who left is let go", func() bool { return back.log.Stats().Follows == 1 })
}

// A node that lies cannot speak for another, nor of a project nobody asked of.
func TestALogThatLies(t *testing.T) {
	var m members
	f := start(t, func(c *Config) { c.Members = m.now })
	id := f.join("bad-1", "lon")
	srv, err := peer.NewServer(peer.ServerConfig{Member: id.Member, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for _, l := range []telemetry.Line{
			{Kind: telemetry.KindFunction, Node: "lon-1", PoP: "nyc", Project: "default", Function: "a", Text: "mine", Time: time.Now()},
			{Kind: telemetry.KindFunction, Project: "other", Function: "a", Text: "not asked", Time: time.Now()},
			{Kind: telemetry.KindNote, Project: "default", Text: "I am control", Level: slog.LevelError},
		} {
			fmt.Fprintf(w, `{"kind":%q,"node":%q,"pop":%q,"project":%q,"function":%q,"msg":%q,"level":"INFO","time":%q}`+"\n",
				l.Kind, l.Node, l.PoP, l.Project, l.Function, l.Text, time.Now().Format(time.RFC3339Nano))
		}
		fmt.Fprint(w, "{\"kind\":\"live\"}\nnot a line\n")
	})})
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wait sync.WaitGroup
	wait.Go(func() { _ = srv.Serve(l) })
	defer wait.Wait()
	defer func() { _ = srv.Close(t.Context()) }()
	m.all = []Member{{Name: "bad-1", PoP: "lon", Peer: l.Addr().String(), Alive: true}}
	a := f.admin("GET", "/v1/projects/default/logs?since=1m", nil)
	f.want(200, a, nil)
	if got := strings.Join(texts(t, string(a.body)), ","); got != "bad-1 mine" && !strings.HasPrefix(got, "bad-1 mine,bad-1 bad-1 is not heard") {
		t.Errorf("got %q", got)
	}
}

// A node that sends a line without end is not heard, and one token's followers are
// bounded: the next is told what to do.
func TestLogsAreBounded(t *testing.T) {
	var m members
	f := start(t, func(c *Config) { c.Members = m.now })
	good := f.logNode(f.join("lon-1", "lon"), "127.0.0.1:0")
	srv, err := peer.NewServer(peer.ServerConfig{Member: f.join("bad-1", "lon").Member, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, `{"msg":"`)
		for r.Context().Err() == nil {
			if _, err := io.WriteString(w, strings.Repeat("x", 64<<10)); err != nil {
				return
			}
		}
	})})
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wait sync.WaitGroup
	wait.Go(func() { _ = srv.Serve(l) })
	defer wait.Wait()
	defer func() { _ = srv.Close(t.Context()) }()
	m.set(good)
	m.all = append(m.all, Member{Name: "bad-1", PoP: "lon", Peer: l.Addr().String(), Alive: true})
	const path = "/v1/projects/default/logs?follow=true"
	in := f.follow(path)
	in.until("note bad-1", "it sent a line of more than")
	good.says("default", "a", "heard all the same")
	in.until("function lon-1 a heard all the same")
	m.set(good)
	for range 7 {
		f.follow(path)
	}
	f.refused(429, "too-many-followers", f.admin("GET", path, nil))
	if a := f.as(f.token(identity.ScopeRead, "default"), "GET", "/v1/projects/default/logs", nil); a.StatusCode != 200 {
		t.Errorf("another token is answered %d", a.StatusCode)
	}
}
