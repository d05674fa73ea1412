package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/selvage-edge/selvage/cmd/selvage/request"
	"github.com/selvage-edge/selvage/cmd/selvage/up"
)

var versions = []request.Version{request.HTTP1, request.HTTP2, request.HTTP3}

// expect is one request and what must come back.
type expect struct {
	method, path, body string
	header             [2]string // one request header
	status             int
	location           string
	contains           []string
	bytes              int           // exact body length; -1: do not look
	atLeast            time.Duration // it must take this long
}

func get(path string, contains ...string) expect {
	return expect{path: path, status: http.StatusOK, contains: contains, bytes: -1}
}

// ask sends e to node n for host over version v and says what was wrong.
func (d *demo) ask(ctx context.Context, n up.Node, v request.Version, host string, e expect) error {
	c, err := request.New(request.Config{Version: v, Connect: n.Public, CAFile: d.fleet.EdgeCA})
	if err != nil {
		return err
	}
	defer c.Close()
	return askWith(ctx, c, d.url(host, e.path), e)
}

func (d *demo) url(host, path string) string {
	return fmt.Sprintf("https://%s.%s:%d%s", host, up.Domain, d.fleet.Port, path)
}

func askWith(ctx context.Context, c *request.Client, url string, e expect) error {
	method := e.method
	if method == "" {
		method = http.MethodGet
	}
	var body io.Reader
	if e.body != "" {
		body = strings.NewReader(e.body)
	}
	r, err := http.NewRequestWithContext(ctx, method, url, body)
	if err != nil {
		return err
	}
	if e.header[0] != "" {
		r.Header.Set(e.header[0], e.header[1])
	}
	begin := time.Now()
	a, err := c.Do(r)
	if err != nil {
		return err
	}
	defer a.Body.Close()
	text, err := io.ReadAll(a.Body)
	if err != nil {
		return fmt.Errorf("%s %s: read body: %w", method, url, err)
	}
	err = e.check(a, text)
	if took := time.Since(begin); took < e.atLeast {
		err = errors.Join(err, fmt.Errorf("answered after %v, before %v", took, e.atLeast))
	}
	if err != nil {
		return fmt.Errorf("%s %s: %w", method, url, err)
	}
	return nil
}

func (e expect) check(a *request.Answer, text []byte) error {
	var errs []error
	if a.Status != e.status {
		errs = append(errs, fmt.Errorf("status %d, want %d", a.Status, e.status))
	}
	if e.location != "" && a.Header.Get("Location") != e.location {
		errs = append(errs, fmt.Errorf("location %q, want %q", a.Header.Get("Location"), e.location))
	}
	if e.bytes >= 0 && len(text) != e.bytes {
		errs = append(errs, fmt.Errorf("%d bytes, want %d", len(text), e.bytes))
	}
	for _, c := range e.contains {
		if !bytes.Contains(text, []byte(c)) {
			errs = append(errs, fmt.Errorf("%q is not in %.200q", c, text))
		}
	}
	return errors.Join(errs...)
}
