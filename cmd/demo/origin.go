package main

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"
)

// origin is what stands behind the proxy example: a page that links to itself.
type origin struct {
	server *http.Server
	url    string
}

func startOrigin() (*origin, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	o := &origin{url: "http://" + l.Addr().String()}
	o.server = &http.Server{Handler: o, ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = o.server.Serve(l) }() // until Close
	return o, nil
}

func (o *origin) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch r.URL.Path {
	case "/moved":
		http.Redirect(w, r, o.url+"/page", http.StatusFound)
	case "/page":
		w.Header().Set("Content-Type", "text/html")
		fmt.Fprintf(w, "<p>asked from %s</p>\n", r.Header.Get("X-Edge-Pop"))
		_ = http.NewResponseController(w).Flush()
		fmt.Fprintf(w, "<a href=%q>next</a>\n", o.url+"/next")
	default:
		http.NotFound(w, r)
	}
}

func (o *origin) close() { _ = o.server.Close() }

// proxyFunction makes a folder whose manifest puts the proxy example before the
// origin, and returns it.
func (d *demo) proxyFunction() (string, error) {
	source, err := filepath.Abs("sdk/examples/proxy")
	if err != nil {
		return "", err
	}
	dir := filepath.Join(d.work, "proxy")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	manifest := fmt.Sprintf(`name = "proxy"
routes = ["proxy.edge.localhost/*"]
[build]
command = """cd '%s' && GOOS=wasip1 GOARCH=wasm go build -buildmode=c-shared -tags edge_noclient -ldflags='-s -w' -o '%s/proxy.wasm' ."""
[[backends]]
name = "origin"
url = "%s"
private = true
[variables]
ORIGIN = "%s"
`, source, dir, d.origin.url, d.origin.url)
	return dir, os.WriteFile(filepath.Join(dir, "selvage.toml"), []byte(manifest), 0o600)
}

// proxyProbes are the requests that show it: links and redirects lead back to the edge.
func (d *demo) proxyProbes() []expect {
	self := d.url("proxy", "")
	return []expect{
		get("/page", "<p>asked from ", `<a href="`+self+`/next">next</a>`),
		{path: "/moved", status: http.StatusFound, location: self + "/page", bytes: -1},
	}
}
