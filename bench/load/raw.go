package load

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// raw is an HTTP/1.1 client that costs little: the request's bytes are made
// once and an answer is parsed as far as its end must be found.
type raw struct {
	cfg     *Config
	request []byte
	conn    *tls.Conn // nil: none open
	r       *bufio.Reader
	reused  bool // the connection has answered before
}

func newRaw(cfg *Config) (client, error) {
	u, err := url.Parse(cfg.URL)
	if err != nil {
		return nil, fmt.Errorf("load: %w", err)
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s %s HTTP/1.1\r\nHost: %s\r\n", cfg.Method, u.RequestURI(), u.Host)
	if err := cfg.Header.WriteSubset(&b, map[string]bool{"Host": true, "Content-Length": true}); err != nil {
		return nil, fmt.Errorf("load: %w", err)
	}
	if len(cfg.Body) > 0 {
		fmt.Fprintf(&b, "Content-Length: %d\r\n", len(cfg.Body))
	}
	b.WriteString("\r\n")
	b.Write(cfg.Body)
	return &raw{cfg: cfg, request: b.Bytes()}, nil
}

func (c *raw) close() {
	if c.conn != nil {
		_ = c.conn.Close()
		c.conn = nil
	}
}

// errGone is a kept-alive connection that the server closed before it answered
// anything: RFC 9112 §9.3.1 lets a client send an idempotent request again.
var errGone = errors.New("the connection was closed before an answer")

func (c *raw) do(ctx context.Context) (answer, error) {
	a, err := withRedial(ctx, func() (answer, error) { return c.once(ctx) })
	if errors.Is(err, errGone) && idempotent(c.cfg.Method) {
		a, err = withRedial(ctx, func() (answer, error) { return c.once(ctx) })
		a.redials++
	}
	return a, err
}

func (c *raw) once(ctx context.Context) (answer, error) {
	if err := c.open(ctx); err != nil {
		return answer{}, err
	}
	conn := c.conn // this one, though c may have closed it by then
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	a, keep, err := c.exchange()
	if !stop() || err != nil || !keep {
		c.close()
	}
	if err != nil && ctx.Err() != nil {
		err = ctx.Err()
	}
	c.reused = true
	return a, err
}

func (c *raw) open(ctx context.Context) error {
	if c.conn != nil {
		return nil
	}
	conn, err := dialTLS(ctx, c.cfg, "http/1.1")
	if err != nil {
		return err
	}
	c.conn, c.reused = conn, false
	if c.r == nil {
		c.r = bufio.NewReaderSize(conn, 16<<10)
	}
	c.r.Reset(conn)
	return nil
}

// exchange sends the request and reads one answer; keep tells whether the
// connection may be used again.
func (c *raw) exchange() (a answer, keep bool, err error) {
	if _, err := c.conn.Write(c.request); err != nil {
		return a, false, c.gone(err)
	}
	if _, err := c.r.Peek(1); err != nil {
		return a, false, c.gone(err)
	}
	var h rawHead
	for h.status < 200 {
		if h, err = readHead(c.r); err != nil {
			return a, false, fmt.Errorf("read the head: %w", err)
		}
	}
	a.status = h.status
	if err := c.readBody(&a, h); err != nil {
		return a, false, fmt.Errorf("read the body: %w", err)
	}
	return a, !h.close, nil
}

func (c *raw) gone(err error) error {
	if c.reused {
		return errGone
	}
	return err
}

// rawHead is what a head says about its body and its connection.
type rawHead struct {
	status  int
	length  int64 // -1: not said
	chunked bool
	close   bool
}

func readHead(r *bufio.Reader) (rawHead, error) {
	h := rawHead{length: -1}
	line, err := readLine(r)
	if err != nil {
		return h, err
	}
	if len(line) < 12 || string(line[:7]) != "HTTP/1." {
		return h, fmt.Errorf("status line %.40q", line)
	}
	if h.status, err = strconv.Atoi(string(line[9:12])); err != nil {
		return h, fmt.Errorf("status line %.40q", line)
	}
	for {
		if line, err = readLine(r); err != nil || len(line) == 0 {
			return h, err
		}
		name, value, _ := bytes.Cut(line, []byte(":"))
		if err := h.field(name, bytes.TrimSpace(value)); err != nil {
			return h, err
		}
	}
}

func (h *rawHead) field(name, value []byte) (err error) {
	switch {
	case len(name) == len("Connection") && strings.EqualFold(string(name), "Connection"):
		h.close = strings.EqualFold(string(value), "close")
	case len(name) == len("Content-Length") && strings.EqualFold(string(name), "Content-Length"):
		h.length, err = strconv.ParseInt(string(value), 10, 64)
	case len(name) == len("Transfer-Encoding") && strings.EqualFold(string(name), "Transfer-Encoding"):
		h.chunked = strings.EqualFold(string(value), "chunked")
	}
	return err
}

func readLine(r *bufio.Reader) ([]byte, error) {
	line, err := r.ReadSlice('\n')
	if err != nil {
		return nil, err
	}
	return bytes.TrimRight(line, "\r\n"), nil
}

func (c *raw) readBody(a *answer, h rawHead) error {
	if c.cfg.Method == http.MethodHead || h.status == http.StatusNoContent || h.status == http.StatusNotModified {
		return nil
	}
	switch {
	case h.chunked:
		return c.readChunks(a)
	case h.length >= 0:
		return c.take(a, h.length)
	}
	return errors.New("an answer without a length") // the node never sends one to HTTP/1.1
}

func (c *raw) readChunks(a *answer) error {
	for {
		line, err := readLine(c.r)
		if err != nil {
			return err
		}
		size, err := strconv.ParseInt(string(line), 16, 64)
		if err != nil {
			return fmt.Errorf("chunk size %.20q", line)
		}
		if size == 0 {
			return c.skipTrailers()
		}
		if err := c.take(a, size); err != nil {
			return err
		}
		if line, err = readLine(c.r); err != nil || len(line) > 0 {
			return errors.Join(errors.New("a chunk without its end"), err)
		}
	}
}

func (c *raw) skipTrailers() error {
	for {
		if line, err := readLine(c.r); err != nil || len(line) == 0 {
			return err
		}
	}
}

// take reads n bytes of the body.
func (c *raw) take(a *answer, n int64) error {
	a.bytes += n
	if c.cfg.Check == nil {
		return c.drop(n)
	}
	start := len(a.body)
	a.body = append(a.body, make([]byte, n)...)
	_, err := io.ReadFull(c.r, a.body[start:])
	return err
}

func (c *raw) drop(n int64) error {
	for n > 0 {
		k, err := c.r.Discard(int(min(n, 1<<20)))
		if err != nil {
			return err
		}
		n -= int64(k)
	}
	return nil
}
