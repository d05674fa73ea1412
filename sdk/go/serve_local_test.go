package edge

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"strings"
	"testing"
)

func TestServeLocal(t *testing.T) {
	lines, w := io.Pipe()
	log.SetOutput(w)
	defer log.SetOutput(io.Discard)
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- serveLocal(ctx, "127.0.0.1:0", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_ = json.NewEncoder(w).Encode(Info(r.Context()))
		}))
	}()
	var url string
	buf := make([]byte, 512)
	n, _ := lines.Read(buf)
	if _, err := fmt.Sscan(string(buf[strings.Index(string(buf[:n]), "http://"):n]), &url); err != nil {
		t.Fatal(err)
	}
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var info Metadata
	if err := json.NewDecoder(resp.Body).Decode(&info); err != nil || info.PoP != "local" || info.RequestID == "" || !info.Client.IsValid() {
		t.Errorf("%+v, %v", info, err)
	}
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestLocalAddress(t *testing.T) {
	t.Setenv("PORT", "")
	if got := localAddress(); got != "127.0.0.1:8787" {
		t.Error(got)
	}
	t.Setenv("PORT", "9000")
	if got := localAddress(); got != "127.0.0.1:9000" {
		t.Error(got)
	}
}

func TestServeLocalSaysWhatIsInTheWay(t *testing.T) {
	if err := serveLocal(t.Context(), "127.0.0.1:nowhere", nil); err == nil {
		t.Error("no error")
	}
}

func TestStatusesHaveTexts(t *testing.T) {
	for s := ErrInternal; s <= ErrInvalid; s++ {
		if strings.HasPrefix(s.Error(), "status ") {
			t.Errorf("%d has no text", int32(s))
		}
	}
	if failure(int32(0)) != nil || failure(int64(-4)) != ErrConflict || Status(-99).Error() != "status -99" {
		t.Error("failure")
	}
}

func TestVariables(t *testing.T) {
	t.Setenv("EDGE_TEST", "value")
	if Var("EDGE_TEST") != "value" || Var("EDGE_MISSING") != "" {
		t.Error("Var")
	}
}
