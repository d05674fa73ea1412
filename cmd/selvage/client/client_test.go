package client

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/selvage-edge/selvage/control/api"
	"github.com/selvage-edge/selvage/control/bundle"
)

// A control node that is not there and one that does not answer are told apart;
// a deploy waits as long as its context lets it.
func TestSilentControl(t *testing.T) {
	over := make(chan struct{})
	silent := httptest.NewTLSServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-over }))
	t.Cleanup(silent.Close)
	t.Cleanup(func() { close(over) }) // first
	gone := httptest.NewTLSServer(nil)
	gone.Close()
	c := &Client{http: silent.Client(), patient: silent.Client()}
	c.http.Transport.(*http.Transport).ResponseHeaderTimeout = time.Millisecond
	for _, w := range []struct {
		control []string
		want    error
	}{{[]string{silent.URL}, ErrSilent}, {[]string{gone.URL}, ErrUnreachable}, {[]string{gone.URL, silent.URL}, ErrSilent}} {
		c.target.Control = w.control
		if _, err := c.do(t.Context(), call{method: "GET", path: "/"}); !errors.Is(err, w.want) {
			t.Errorf("%v: %v, want %v", w.control, err, w.want)
		}
	}
	c.patient = &http.Client{Transport: c.http.Transport.(*http.Transport).Clone()}
	c.patient.Transport.(*http.Transport).ResponseHeaderTimeout = 0
	c.target.Control = []string{silent.URL}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := c.Deploy(ctx, "p", "f", ""); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("deploy: %v, want the end of its own time", err)
	}
}

// What somebody answers at control's address is shown as text, and not without end.
func TestRefusalIsPlainAndBounded(t *testing.T) {
	long := strings.Repeat("x", 1<<18)
	const bad = "\x1b]0;owned\x07\u009b2J\u202e"
	p := api.Problem{Title: bad + "t", Detail: bad + long, Hint: "deploy again" + bad, Instance: bad, Status: 500}
	for range 1000 {
		p.Faults = append(p.Faults, bundle.Fault{Line: 3, Key: bad, Message: "more" + bad})
	}
	document, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	for name, body := range map[string]string{"problem": string(document), "text": bad + "deploy again" + long, "no JSON": "{" + bad + "deploy again"} {
		got := refusal(&http.Response{StatusCode: 500, Body: io.NopCloser(strings.NewReader(body))}).Error()
		if strings.ContainsAny(got, "\x1b\x07\u009b\u202e") || len(got) > 32<<10 || !strings.Contains(got, "deploy again") {
			t.Errorf("%s: %d bytes: %.200q", name, len(got), got)
		}
	}
}
