package main

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/selvage-edge/selvage/cmd/selvage/request"
	"github.com/selvage-edge/selvage/runtime/guesttest"
	"github.com/selvage-edge/selvage/runtime/jail"
)

// A node's server is in its jail, with every thread, and does all of its work
// there: it compiles through helpers, serves, writes its state, starts again from it.
func TestServerIsJailed(t *testing.T) {
	for _, c := range jail.Capabilities() {
		if !c.OK && os.Getenv("CI") != "true" {
			t.Skipf("this machine does not give %s: %s", c.Name, c.Detail)
		}
	}
	w := openWorld(t, "127.0.0.90")
	first := w.newest(t)
	checkJailed(t, first)
	w.selvage(t, "deploy", "--wait", w.function(t, "good", guesttest.Guest(t, greet))).expect(t, exitOK, "live")
	w.checkGreets(t)
	if made, err := os.ReadDir(filepath.Join(w.state(), "artifacts")); err != nil || len(made) == 0 {
		t.Errorf("compiled code was not kept: %v, %v", made, err)
	}
	if m := w.metrics(t); !regexp.MustCompile(`(?m)^process_open_fds [1-9]`).MatchString(m) || !strings.Contains(m, "process_start_time_seconds") {
		t.Error("the metrics do not have what /proc says of the server")
	}
	checkJailed(t, first) // threads that were started since

	if err := syscall.Kill(first, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	w.checkGreets(t) // waits at the sockets, which the keeper holds
	second := w.newest(t)
	for end := time.Now().Add(time.Minute); second == first; second = w.newest(t) {
		if time.Now().After(end) {
			t.Fatalf("server %d was not replaced within a minute", first)
		}
		time.Sleep(10 * time.Millisecond)
	}
	checkJailed(t, second)
	log := w.log(t)
	for _, bad := range []string{"without a wall", "permission denied", "not permitted"} {
		if strings.Contains(log, bad) {
			t.Errorf("the log says %q", bad)
		}
	}
}

// A control node's process is in a jail like a server's, and does all of its work there; it
// ends in order, with what runs its helpers.
func TestControlIsJailed(t *testing.T) {
	for _, c := range jail.Capabilities() {
		if !c.OK && os.Getenv("CI") != "true" {
			t.Skipf("this machine does not give %s: %s", c.Name, c.Detail)
		}
	}
	w := openWorld(t, "127.0.7.60")
	checkJailed(t, w.Control.PID())
	w.selvage(t, "kv", "create", "words").expect(t, exitOK)
	w.selvage(t, "kv", "put", "words", "k", "v").expect(t, exitOK)
	w.selvage(t, "deploy", "--wait", w.function(t, "good", guesttest.Guest(t, greet))).expect(t, exitOK, "live")
	w.selvage(t, "remove", "good", "--yes")
	checkJailed(t, w.Control.PID()) // threads that were started since
	lenders := children(w.Control.PID(), "lend")
	if len(lenders) != 1 {
		t.Fatalf("%d processes run helpers for control", len(lenders))
	}
	w.Control.Stop(30 * time.Second)
	if err := w.Control.Err(); err != nil {
		t.Errorf("control ended with %v", err)
	}
	if !gone(lenders[0]) {
		t.Error("what ran its helpers is still there")
	}
	log := logOf(t, w.Layout.Control)
	for _, bad := range []string{"without a wall", "permission denied", "not permitted", "helpers has ended"} {
		if strings.Contains(log, bad) {
			t.Errorf("the log says %q:\n%s", bad, log)
		}
	}
}

func (w *world) checkGreets(t *testing.T) {
	t.Helper()
	for _, v := range []request.Version{request.HTTP1, request.HTTP2, request.HTTP3} {
		if status, body := w.get(t, v, "good", "/"); status != 200 || body != "woven\n" {
			t.Errorf("h%s: %d %q", v, status, body)
		}
	}
}

// state is the state folder of the first edge node.
func (w *world) state() string {
	return filepath.Join(filepath.Dir(w.Layout.Edges[0].Log), "state")
}

func (w *world) log(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile(w.Layout.Edges[0].Log)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// newest is the process id of the first node's newest server.
func (w *world) newest(t *testing.T) int {
	t.Helper()
	found := regexp.MustCompile(`"msg":"server ready".*"pid":(\d+)`).FindAllStringSubmatch(w.log(t), -1)
	if len(found) == 0 {
		t.Fatal("no server is ready")
	}
	pid, err := strconv.Atoi(found[len(found)-1][1])
	if err != nil {
		t.Fatal(err)
	}
	return pid
}

func (w *world) metrics(t *testing.T) string {
	t.Helper()
	r, err := http.Get("http://" + w.Layout.Edges[0].Admin + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// checkJailed looks at a process from outside.
func checkJailed(t *testing.T, pid int) {
	t.Helper()
	tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, task := range tasks {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/status", pid, task.Name()))
		if err != nil {
			continue // that thread has ended
		}
		for _, want := range []string{"NoNewPrivs:\t1\n", "Seccomp:\t2\n"} {
			if !strings.Contains(string(b), want) {
				t.Errorf("thread %s of the server: no %q in its status:\n%s", task.Name(), want, b)
			}
		}
		if caps := regexp.MustCompile(`CapPrm:\t(\w+)`).FindStringSubmatch(string(b)); len(caps) != 2 || strings.Trim(caps[1], "0") != "" && strings.TrimLeft(caps[1], "0") != "402" {
			t.Errorf("thread %s of the server has capabilities %q", task.Name(), caps)
		}
	}
	limits, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", pid))
	if err != nil || !regexp.MustCompile(`(?m)^Max core file size +0 +0 `).Match(limits) {
		t.Errorf("core dumps are not off: %v\n%s", err, limits)
	}
}
