package api

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	"github.com/selvage-edge/selvage/control/identity"
)

// One who does not take the answers keeps others of that token out, and nobody else.
func TestAnswerThatIsNotTaken(t *testing.T) {
	f := start(t, func(c *Config) { c.AnswerBytes, c.AnswerWait = 100<<20, 50*time.Millisecond }) // 25 MiB for a token
	f.want(200, f.admin("PUT", "/v1/projects/default/kv/links", nil), nil)
	value := bytes.Repeat([]byte("v"), 20<<20) // more than what is on the way
	f.want(200, f.admin("PUT", keysOf+"/large", value), nil)
	f.want(200, f.admin("PUT", keysOf+"/small", []byte("s")), nil)
	slow, quick := f.token(identity.ScopeRead, "default"), f.token(identity.ScopeRead, "default")

	req, err := http.NewRequestWithContext(t.Context(), "GET", f.url+keysOf+"/large", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+slow)
	held, err := f.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	a := f.as(slow, "GET", keysOf+"/large", nil)
	if f.refused(429, "too-many-answers", a); a.Header.Get("Retry-After") != "1" {
		t.Errorf("head %v", a.Header)
	}
	f.refused(429, "too-many-answers", f.as(slow, "POST", "/v1/projects/default/kv/links/read", ReadRequest{Keys: [][]byte{[]byte("small"), []byte("large")}}))
	for _, path := range []string{keysOf, keysOf + "/small"} {
		if a := f.as(slow, "GET", path, nil); a.StatusCode != 200 {
			t.Errorf("%s, which needs no room: %d", path, a.StatusCode)
		}
	}
	if a := f.as(quick, "GET", keysOf+"/large", nil); a.StatusCode != 200 || !bytes.Equal(a.body, value) {
		t.Errorf("another token: %d, %d bytes", a.StatusCode, len(a.body))
	}
	held.Body.Close()
	for a = f.as(slow, "GET", keysOf+"/large", nil); a.StatusCode == 429; a = f.as(slow, "GET", keysOf+"/large", nil) {
	}
	if !bytes.Equal(a.body, value) {
		t.Errorf("once it is over: %d, %d bytes", a.StatusCode, len(a.body))
	}
}

// timed is a writer that has deadlines.
type timed struct {
	*httptest.ResponseRecorder
	deadlines []time.Time
	written   int // deadlines when the body came
}

func (w *timed) SetWriteDeadline(t time.Time) error {
	w.deadlines = append(w.deadlines, t)
	return nil
}

func (w *timed) Write(b []byte) (int, error) {
	w.written = len(w.deadlines)
	return w.ResponseRecorder.Write(b)
}

func TestAnswersHaveADeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for size, want := range map[int]time.Duration{10: 10 * time.Second, 1 << 20: 14 * time.Second} {
			w := &timed{ResponseRecorder: httptest.NewRecorder()}
			deliver(w, make([]byte, size))
			if len(w.deadlines) != 2 || w.written != 1 || time.Until(w.deadlines[0]) != want || !w.deadlines[1].IsZero() || w.Body.Len() != size {
				t.Errorf("%d bytes: deadlines %v, %d before the body of %d", size, w.deadlines, w.written, w.Body.Len())
			}
		}
	})
}
