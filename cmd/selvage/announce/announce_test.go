package announce

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/selvage-edge/selvage/edge/limit"
	"github.com/selvage-edge/selvage/edge/route"
	"github.com/selvage-edge/selvage/edge/serve"
	"github.com/selvage-edge/selvage/edge/telemetry"
)

// What a node says, a letter a second (r ready, f failing, d draining), and what
// is done by then: w withdraws, a announces, and "." nothing. It begins and ends with w.
func TestWatch(t *testing.T) {
	for says, does := range map[string]string{
		"rrrr":         ".a..",
		"rfrfrr":       ".....a",
		"rrffrrfffrr":  ".a......w.a",
		"rrdrr":        ".aw.a",
		"rrfd":         ".a.w",
		"ffff":         "....",
		"rrffdddrrfff": ".a..w...a..w",
	} {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			at, got, started := -1, []byte(strings.Repeat(".", len(says))), 0
			c := Config{Interval: time.Second, Rise: 2, Fall: 3, Say: func(string, ...any) {}}
			c.Check = func(context.Context) error {
				if at++; at >= len(says) {
					cancel()
					return nil
				}
				return map[byte]error{'r': nil, 'f': errors.New("no"), 'd': ErrDraining}[says[at]]
			}
			ended := 0
			c.Tell = func(ctx context.Context, up bool, why string) error {
				switch {
				case ctx.Err() != nil:
					t.Error("called with a context that has ended")
				case at < 0:
					started++
				case at >= len(says):
					ended++
				default:
					got[at] = word(up)[0]
				}
				if up && (at < 0 || at >= len(says)) {
					t.Errorf("announced at the beginning or the end")
				}
				return nil
			}
			if err := Run(ctx, c); err != nil || string(got) != does || started != 1 || ended != 1 {
				t.Errorf("%s: %s, want %s; %d at the start, %d at the end, %v", says, got, does, started, ended, err)
			}
		})
	}
}

// A hook that fails is called until it does not.
func TestHookIsCalledAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 10500*time.Millisecond)
		defer cancel()
		calls := 0
		c := Config{Interval: time.Second, Rise: 1, Fall: 1, Say: func(string, ...any) {}, Check: func(context.Context) error { return nil }}
		c.Tell = func(_ context.Context, up bool, _ string) error {
			if !up {
				return nil
			}
			if calls++; calls < 4 {
				return errors.New("no")
			}
			return nil
		}
		if err := Run(ctx, c); err != nil || calls != 4 {
			t.Errorf("%d calls, %v", calls, err)
		}
	})
}

// The check reads what a node's own admin port says.
func TestReady(t *testing.T) {
	h, err := serve.New(serve.Config{Limiter: limit.New(limit.Config{}), Telemetry: telemetry.New(telemetry.Config{})})
	if err != nil {
		t.Fatal(err)
	}
	admin := httptest.NewServer(h.Admin())
	check := Ready(strings.TrimPrefix(admin.URL, "http://"))
	if err := check(t.Context()); err == nil || !strings.Contains(err.Error(), "no route table") {
		t.Errorf("without routes: %v", err)
	}
	table, err := route.Build([]serve.Entry{})
	if err != nil {
		t.Fatal(err)
	}
	h.SetRoutes(table)
	if err := check(t.Context()); err != nil {
		t.Errorf("ready: %v", err)
	}
	h.SetDraining(true)
	if err := check(t.Context()); !errors.Is(err, ErrDraining) {
		t.Errorf("draining: %v", err)
	}
	admin.Close()
	if err := check(t.Context()); err == nil {
		t.Error("nobody answers")
	}
	hung := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
	defer hung.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if err := Ready(strings.TrimPrefix(hung.URL, "http://"))(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("it hangs: %v", err)
	}
}

func TestHooks(t *testing.T) {
	var b bytes.Buffer
	path := filepath.Join(t.TempDir(), "said")
	h := All(ExaBGP(&b, []netip.Prefix{netip.MustParsePrefix("192.0.2.53/32"), netip.MustParsePrefix("2001:db8::53/128")}),
		Command("exit 3"), Command(`echo "$SELVAGE_ANYCAST $SELVAGE_REASON" >> `+path))
	for up, why := range map[bool]string{true: "it is ready", false: "no\x1b[31m\nroute"} {
		if err := h(t.Context(), up, why); err == nil || !strings.Contains(err.Error(), "exit status 3") {
			t.Errorf("a command that fails: %v", err)
		}
	}
	for _, want := range []string{"announce route 192.0.2.53/32 next-hop self\nannounce route 2001:db8::53/128 next-hop self\n", "withdraw route 192.0.2.53/32 next-hop self\n"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("%q is not in %q", want, &b)
		}
	}
	said, err := os.ReadFile(path)
	if err != nil || !strings.Contains(string(said), "announce it is ready\n") || !strings.Contains(string(said), "withdraw no") || strings.Count(string(said), "\n") != 2 || strings.Contains(string(said), "\x1b") {
		t.Errorf("%q, %v", said, err)
	}
}
