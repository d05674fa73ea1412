package main

import (
	"context"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	edge "github.com/selvage-edge/selvage/sdk/go"
)

var (
	soon   = time.Now().Add(time.Hour)
	viewer = netip.MustParseAddr("192.0.2.7")
	secret = []byte("a secret of 32 bytes, or of more")
)

// A request's way to the origin, a real server, with each kind of token.
func TestStream(t *testing.T) {
	var asked []string
	origin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked = append(asked, r.URL.EscapedPath())
		http.ServeContent(w, r, "a.ts", time.Time{}, strings.NewReader("0123456789"))
	}))
	defer origin.Close()
	if _, err := secrets.Put(t.Context(), "key:k1", secret); err != nil {
		t.Fatal(err)
	}
	h := routes(func() string { return origin.URL }, edge.Fetch)
	ask := func(path string) *httptest.ResponseRecorder {
		ctx := edge.WithInfo(context.Background(), edge.Metadata{Client: netip.AddrPortFrom(viewer, 4000)})
		r := httptest.NewRequestWithContext(ctx, http.MethodGet, path, nil)
		r.Header.Set("Range", "bytes=2-4")
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		return w
	}
	good := grant{soon, "k1", anybody}.sign(secret, "/live/")
	mine := grant{soon, "k1", clientPart(viewer)}.sign(secret, "/live/")
	for _, token := range []string{good, mine} {
		if w := ask("/live/" + token + "/hd/a%20b.ts"); w.Code != http.StatusPartialContent || w.Body.String() != "234" || w.Header().Get("Content-Range") != "bytes 2-4/10" {
			t.Errorf("%s: %d %q", token, w.Code, w.Body)
		}
	}
	if len(asked) != 2 || asked[0] != "/live/hd/a%20b.ts" {
		t.Errorf("the origin was asked for %q", asked)
	}
	for why, path := range map[string]string{
		"another stream":   "/other/" + good + "/a.ts",
		"expired":          "/live/" + grant{time.Now().Add(-time.Second), "k1", anybody}.sign(secret, "/live/") + "/a.ts",
		"another's":        "/live/" + grant{soon, "k1", clientPart(netip.MustParseAddr("192.0.2.8"))}.sign(secret, "/live/") + "/a.ts",
		"another secret":   "/live/" + grant{soon, "k1", anybody}.sign([]byte("guessed"), "/live/") + "/a.ts",
		"an unknown key":   "/live/" + grant{soon, "k2", anybody}.sign(secret, "/live/") + "/a.ts",
		"made longer":      "/live/9" + good + "/a.ts",
		"made anybody's":   "/live/" + strings.Replace(mine, clientPart(viewer), anybody, 1) + "/a.ts",
		"no token":         "/live/a/a.ts",
		"too long a token": "/live/" + good + strings.Repeat("A", maxToken) + "/a.ts",
	} {
		if w := ask(path); w.Code != http.StatusForbidden || w.Header().Get("Cache-Control") != "no-store" {
			t.Errorf("%s: %d %q", why, w.Code, w.Body)
		}
	}
	for _, file := range []string{"../other/a.ts", "%2e%2e/other/a.ts", "a%2f..%2f..%2fother/a.ts", "hd/"} {
		if w := ask("/live/" + good + "/" + file); w.Code < 300 {
			t.Errorf("%s: %d %q", file, w.Code, w.Body)
		}
	}
	if len(asked) != 2 {
		t.Errorf("the origin was asked for %q", asked[2:])
	}
}

func FuzzToken(f *testing.F) {
	f.Add(grant{soon, "k1", anybody}.sign(secret, "/live/"))
	f.Add("1.k.any.")
	f.Add("....")
	f.Fuzz(func(t *testing.T, token string) {
		err := check(token, secret, "/never signed/", viewer, time.Unix(0, 0))
		if err == nil {
			t.Fatalf("%q is taken", token)
		}
	})
}
