package main

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/selvage-edge/selvage/cmd/selvage/request"
)

// traces has the node send spans to a receiver here, and asks it with a trace of
// the client's: the exchange and the guest's run are in it.
func (w *world) traces(t *testing.T) {
	const id = "4bf92f3577b34da6a3ce929d0e0e4736"
	raw, err := hex.DecodeString(id)
	if err != nil {
		t.Fatal(err)
	}
	got := make(chan []byte, 100)
	receiver := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if b, err := io.ReadAll(r.Body); err == nil && bytes.Contains(b, raw) {
			got <- b
		}
	}))
	defer receiver.Close()
	node := w.Layout.Edges[0]
	conf, err := os.ReadFile(node.Config)
	if err != nil {
		t.Fatal(err)
	}
	traced := fmt.Appendf(conf, "\n[trace]\nendpoint = %q\nratio = 0.0\n", receiver.URL+"/v1/traces")
	if err := os.WriteFile(node.Config, traced, 0o600); err != nil {
		t.Fatal(err)
	}
	w.Edges[node.Name].Stop(30 * time.Second)
	if err := w.StartEdge(t.Context(), node); err != nil {
		t.Fatal(err)
	}
	if err := w.Edges[node.Name].Ready(t.Context(), "/readyz"); err != nil {
		t.Fatal(err)
	}
	c, err := request.New(request.Config{Version: request.HTTP2, Connect: node.Public, CAFile: w.EdgeCA})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://good.edge.localhost:8443/traced", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Traceparent", "00-"+id+"-00f067aa0ba902b7-01")
	a, err := c.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	a.Body.Close()
	select {
	case b := <-got:
		for _, want := range []string{"guest", "GET default/good", "selvage-edge", "/traced"} {
			if !bytes.Contains(b, []byte(want)) {
				t.Errorf("the spans do not tell %q", want)
			}
		}
	case <-time.After(time.Minute):
		t.Fatal("no span came")
	}
	if out := w.selvage(t, "logs", "good", "--json").out; !strings.Contains(out, `"trace_id":"`+id+`"`) {
		t.Errorf("the access record does not name the trace:\n%s", out)
	}
}
