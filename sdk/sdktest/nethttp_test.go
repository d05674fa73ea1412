package sdktest

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/textproto"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

type exchange struct {
	method, target string
	header         http.Header
	body           string
	trailer        http.Header
}

// exchanges are requests whose answers must be the same from a guest and from
// the same program on net/http's server.
var exchanges = []exchange{
	{target: "/plain"},
	{target: "/plain", method: "HEAD"},
	{target: "/silent"},
	{target: "/silent", method: "HEAD"},
	{target: "/status/200"},
	{target: "/status/201", method: "POST"},
	{target: "/status/204"},
	{target: "/status/304"},
	{target: "/status/404"},
	{target: "/status/418"},
	{target: "/status/599"},
	{target: "/no-content-with-length"},
	{target: "/body/1"},
	{target: "/body/2047"},
	{target: "/body/2048"},
	{target: "/body/2049"},
	{target: "/body/2049", method: "HEAD"},
	{target: "/body/100000"},
	{target: "/pieces/3/10"},
	{target: "/pieces/100/100"},
	{target: "/pieces/2/1024"},
	{target: "/pieces/3/1024"},
	{target: "/pieces/40/3000"},
	{target: "/sniff/html"},
	{target: "/sniff/png"},
	{target: "/sniff/pieces"},
	{target: "/sniff/off"},
	{target: "/sniff/encoded"},
	{target: "/length/declared"},
	{target: "/length/declared", method: "HEAD"},
	{target: "/length/invalid"},
	{target: "/length/exceeded"},
	{target: "/header/late"},
	{target: "/header/odd"},
	{target: "/header/cookies"},
	{target: "/superfluous"},
	{target: "/flush"},
	{target: "/flush/first"},
	{target: "/controller"},
	{target: "/early"},
	{target: "/error"},
	{target: "/redirect"},
	{target: "/content"},
	{target: "/content", header: http.Header{"Range": {"bytes=10-19"}}},
	{target: "/content", header: http.Header{"Range": {"bytes=10-19"}}, method: "HEAD"},
	{target: "/content", header: http.Header{"If-Modified-Since": {"Sun, 09 Sep 2001 01:46:40 GMT"}}},
	{target: "/content", header: http.Header{"Range": {"bytes=99999-"}}},
	{target: "/timeout"},
	{target: "/goroutines"},
	{target: "/missing"},
	{target: "/request/a%2Fb/c?x=1&x=2&y=%20z"},
	{target: "/request//double//slash"},
	{target: "/request/", header: http.Header{"Cookie": {"a=1; b=2"}, "Authorization": {"Basic dTpw"}, "X-Two": {"1", "2"}}},
	{target: "/request/", method: "POST", body: "hello"},
	{target: "/request/", method: "DELETE"},
	{target: "/request/", method: "PATCH", body: strings.Repeat("x", 70000), header: http.Header{"Unknown-Length": {"1"}}},
	{target: "/items/7/a/b"},
	{target: "/items/7/a/b", method: "POST"},
	{target: "/form?q=1", method: "POST", body: "a=1&b=2", header: http.Header{"Content-Type": {"application/x-www-form-urlencoded"}}},
	{target: "/form", method: "POST", header: http.Header{"Content-Type": {"multipart/form-data; boundary=B"}},
		body: "--B\r\nContent-Disposition: form-data; name=\"n\"\r\n\r\nv\r\n--B\r\nContent-Disposition: form-data; name=\"f\"; filename=\"f.txt\"\r\n\r\nfile\r\n--B--\r\n"},
	{target: "/limited", method: "POST", body: strings.Repeat("x", 11)},
	{target: "/digest", method: "POST", body: strings.Repeat("digest ", 30000)},
	{target: "/digest"},
	{target: "/trailers/declared"},
	{target: "/trailers/late"},
	{target: "/trailers/too-late"},
	{target: "/trailers/request", method: "POST", body: "hello", trailer: http.Header{"X-Sum": {"abc"}, "X-Two": {"1", "2"}}},
	{target: "/trailers/request", method: "POST", body: "hello"},
	{target: "/echo", method: "PUT", body: strings.Repeat("echo ", 30000), header: http.Header{"Content-Type": {"text/x-echo"}}},
}

func TestAnswersAsNetHTTP(t *testing.T) {
	want := serveNatively(t, "guest")
	for _, snapshot := range []bool{false, true} {
		t.Run(fmt.Sprintf("snapshot=%t", snapshot), func(t *testing.T) {
			h := newHost(t, build(t, "guest"), snapshot)
			got := httptest.NewServer(h)
			t.Cleanup(got.Close)
			for _, x := range exchanges {
				t.Run(strings.TrimSpace(x.method+" "+x.target), func(t *testing.T) { compare(t, want, got.URL, x) })
			}
			if t.Failed() {
				t.Log(h.log)
			}
		})
	}
}

func compare(t *testing.T, native, guest string, x exchange) {
	t.Helper()
	want, got := ask(t, native, x), ask(t, guest, x)
	if want.length < 0 && got.length == int64(len(got.body)) {
		got.length = -1 // the node knows the length of a short answer: better than chunks
	}
	if want.rest != got.rest || want.length != got.length {
		t.Errorf("net/http answers (length %d)\n%s\nthe guest (length %d)\n%s", want.length, want.rest, got.length, got.rest)
	}
	if want.body != got.body {
		t.Errorf("net/http's body has %d bytes: %.300q\nthe guest's has %d: %.300q", len(want.body), want.body, len(got.body), got.body)
	}
}

// answer is everything about an answer but its date and the connection's business.
type answer struct {
	rest   string
	length int64
	body   string
}

func ask(t *testing.T, base string, x exchange) answer {
	t.Helper()
	var got strings.Builder
	limit, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	ctx := httptrace.WithClientTrace(limit, &httptrace.ClientTrace{Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
		fmt.Fprintln(&got, code, h)
		return nil
	}})
	resp, err := transport.RoundTrip(x.request(t, ctx, base))
	if err != nil {
		return answer{rest: "error " + err.Error()}
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	for _, name := range []string{"Date", "Content-Length", "Connection"} {
		resp.Header.Del(name)
	}
	fmt.Fprintln(&got, resp.Status, err)
	_ = resp.Header.Write(&got)
	maps.DeleteFunc(resp.Trailer, func(_ string, values []string) bool { return values == nil }) // announced, and no more
	if len(resp.Trailer) > 0 {
		fmt.Fprintln(&got, "trailers:", resp.Trailer)
	}
	return answer{rest: got.String(), length: resp.ContentLength, body: string(body)}
}

func (x exchange) request(t *testing.T, ctx context.Context, base string) *http.Request {
	t.Helper()
	var body io.Reader
	if x.body != "" {
		body = strings.NewReader(x.body)
	}
	r, err := http.NewRequestWithContext(ctx, x.method, base+x.target, body)
	if err != nil {
		t.Fatal(err)
	}
	maps.Copy(r.Header, x.header)
	if x.trailer != nil {
		r.Trailer, r.ContentLength = x.trailer, -1
	}
	if x.header.Get("Unknown-Length") != "" {
		r.ContentLength = -1
	}
	r.Host = "guest.test"
	return r
}

var transport = &http.Transport{DisableCompression: true}

// serveNatively runs the program in dir as an ordinary server on this machine.
func serveNatively(t *testing.T, dir string) string {
	t.Helper()
	exe := filepath.Join(scratch, filepath.Base(dir)+".native")
	goBuild := exec.Command("go", "build", "-o", exe, ".")
	goBuild.Dir = dir
	if msg, err := goBuild.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, msg)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, exe)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.Env = append(os.Environ(), "PORT=0")
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	base := make(chan string, 1)
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		for s := bufio.NewScanner(stderr); s.Scan(); {
			if _, after, ok := strings.Cut(s.Text(), "serving on "); ok {
				base <- strings.Fields(after)[0]
			}
		}
		close(base)
	}()
	t.Cleanup(func() {
		cancel()
		<-drained
		_ = cmd.Wait()
	})
	url, ok := <-base
	if !ok {
		t.Fatal("the program ended before it served")
	}
	return url
}
