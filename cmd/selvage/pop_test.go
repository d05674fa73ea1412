package main

import (
	"bufio"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/selvage-edge/selvage/cmd/selvage/request"
	"github.com/selvage-edge/selvage/cmd/selvage/up"
	"github.com/selvage-edge/selvage/runtime/guesttest"
)

// metric reads one number from a node's /metrics; 0 when the node does not answer.
func metric(n up.Node, name string) float64 {
	c := &http.Client{Timeout: 5 * time.Second}
	defer c.CloseIdleConnections()
	resp, err := c.Get("http://" + n.Admin + "/metrics")
	if err != nil {
		return 0
	}
	defer resp.Body.Close()
	for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
		f := strings.Fields(lines.Text())
		if len(f) == 2 && (f[0] == name || strings.HasPrefix(f[0], name+"{")) {
			v, _ := strconv.ParseFloat(f[1], 64)
			return v
		}
	}
	return 0
}

// eventually waits for a condition, for as long as a slow machine may need.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
	}
}

// answers waits until the node's function says body.
func (w *world) answers(t *testing.T, n up.Node, name, body string) {
	t.Helper()
	eventually(t, fmt.Sprintf("%s answers %q on %s", name, body, n.Name), func() bool {
		status, got := w.getFrom(t, n, request.HTTP2, name, "/")
		return status == 200 && got == body
	})
}

func says(t *testing.T, text string) []byte {
	return guesttest.Guest(t, fmt.Sprintf(`(data (i32.const 64) %q)
(func (export "handle") (drop (call $response_write (i32.const 64) (i32.const %d))))`, text, len(text)))
}

// One PoP of three nodes: control sends each code and image once, and each log to one
// of them; when that one is killed another takes its place within seconds.
func TestAPoPOfThree(t *testing.T) {
	w := openWorldOf(t, "127.0.7.50", 3, func(l *up.Layout) {
		for i := range l.Edges {
			l.Edges[i].PoP, l.Edges[i].Region = "lon", "eu"
		}
	})
	nodes := w.Layout.Edges
	sum := func(name string) (n float64) {
		for _, e := range nodes {
			n += metric(e, name)
		}
		return n
	}
	w.selvage(t, "kv", "create", "words").expect(t, exitOK)
	eventually(t, "one node follows control, and two follow it", func() bool {
		return sum("selvage_changes_logs_control") == 1 && sum("selvage_changes_logs_neighbour") == 2 && metric(w.Layout.Control, "selvage_control_streams") == 1
	})
	// Who does not know of a neighbour yet takes somebody else for who asks control.
	eventually(t, "each knows all", func() bool {
		for _, n := range nodes {
			for _, other := range nodes {
				if !strings.Contains(logOf(t, n), fmt.Sprintf(`"fleet: joined","node":%q,"member":%q`, n.Name, other.Name)) {
					return false
				}
			}
		}
		return true
	})
	const functions = 4
	for i := range functions {
		name := fmt.Sprint("f", i)
		w.selvage(t, "deploy", "--wait", w.function(t, name, says(t, name), "[[kv]]", `name = "words"`)).expect(t, exitOK, "live")
	}
	for i := range functions {
		for _, n := range nodes {
			w.answers(t, n, fmt.Sprint("f", i), fmt.Sprint("f", i))
		}
	}
	// The code of all is one: modules that differ in their data alone share it.
	asked, got, detours := metric(w.Layout.Control, "selvage_control_blobs_total"), sum("selvage_blobs_from_neighbours_total"), sum("selvage_blobs_detours_total")
	t.Logf("control was asked for %v blobs, neighbours gave %v, %v detours", asked, got, detours)
	if blobs := asked + got; int(blobs)%3 != 0 || asked > blobs/3+detours {
		t.Errorf("control was asked for %v blobs, neighbours gave %v, %v detours: want a third of all from control", asked, got, detours)
	}
	eventually(t, "two logs, each to one node", func() bool {
		return sum("selvage_changes_logs_control") == 2 && sum("selvage_changes_logs_neighbour") == 4
	})

	var leader up.Node
	for _, n := range nodes {
		if metric(n, "selvage_relay_streams") > 0 {
			leader = n
		}
	}
	begin := time.Now()
	w.end(leader)
	w.selvage(t, "deploy", w.function(t, "f0", says(t, "again"))).expect(t, exitOK)
	for _, n := range nodes {
		if n.Name != leader.Name {
			w.answers(t, n, "f0", "again")
		}
	}
	t.Logf("%s was killed; a release after that was live on the others %v later", leader.Name, time.Since(begin).Round(time.Millisecond))
	if err := w.StartEdge(t.Context(), leader); err != nil {
		t.Fatal(err)
	}
	w.answers(t, leader, "f0", "again")
}
