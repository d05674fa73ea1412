package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/selvage-edge/selvage/cmd/selvage/request"
	"github.com/selvage-edge/selvage/cmd/selvage/target"
)

type requestFlags struct {
	http1, http3, head bool
	pop, connect, ca   string
	method, data       string
	headers            []string
}

// requestResult is the --json form.
type requestResult struct {
	URL         string      `json:"url"`
	Connected   string      `json:"connected,omitempty"`
	Protocol    string      `json:"protocol"`
	Status      int         `json:"status"`
	FirstByteMS float64     `json:"first_byte_ms"`
	Headers     http.Header `json:"headers"`
	Body        string      `json:"body"`
}

func requestCommand(o *options) *cobra.Command {
	var f requestFlags
	c := &cobra.Command{
		Use:   "request URL",
		Short: "send one request, over HTTP/3 or to a PoP by name if asked",
		Long: `Sends one HTTP request and prints the answer's body; -i prints its head too.
HTTP/2 unless --http1 or --http3. --pop NAME connects to that PoP, whatever the
URL's host resolves to: it asks the control node for its address; --connect does
without. Certificates are checked against the target's edge_ca
(the local CA of 'selvage up'), or the system's.`,
		Example: "  selvage request --pop lon --http3 https://hello.edge.localhost:8443/",
		Args:    cobra.ExactArgs(1),
		RunE:    func(c *cobra.Command, args []string) error { return runRequest(c, o, &f, args[0]) },
	}
	fl := c.Flags()
	fl.BoolVar(&f.http1, "http1", false, "use HTTP/1.1")
	fl.BoolVar(&f.http3, "http3", false, "use HTTP/3")
	fl.BoolVarP(&f.head, "include", "i", false, "print the status line and the headers too")
	fl.StringVar(&f.pop, "pop", "", "connect to the PoP of this name")
	fl.StringVar(&f.connect, "connect", "", "connect to this host:port")
	fl.StringVar(&f.ca, "ca", "", "PEM file of the CA to trust (default: the target's edge_ca)")
	fl.StringVarP(&f.method, "method", "X", "", "method (default GET, or POST with --data)")
	fl.StringVarP(&f.data, "data", "d", "", "request body; @FILE reads a file, @- standard input")
	fl.StringArrayVarP(&f.headers, "header", "H", nil, "header, as 'Name: value'; may be repeated")
	c.MarkFlagsMutuallyExclusive("http1", "http3")
	c.MarkFlagsMutuallyExclusive("pop", "connect")
	return c
}

func runRequest(c *cobra.Command, o *options, f *requestFlags, raw string) error {
	r, err := buildRequest(c, f, raw)
	if err != nil {
		return err
	}
	conf, err := connection(c, o, f, r.URL)
	if err != nil {
		return err
	}
	cl, err := request.New(conf)
	if err != nil {
		return err
	}
	defer cl.Close()
	a, err := cl.Do(r)
	var lookup *net.DNSError
	if errors.As(err, &lookup) {
		return fmt.Errorf("%w\nname a PoP with --pop, or an address with --connect", err)
	}
	if err != nil {
		return err
	}
	defer a.Body.Close()
	return printAnswer(o, f, raw, conf.Connect, a)
}

func printAnswer(o *options, f *requestFlags, raw, connected string, a *request.Answer) error {
	if o.json {
		body, err := io.ReadAll(a.Body)
		if err != nil {
			return fmt.Errorf("read the answer: %w", err)
		}
		return o.out().Result(requestResult{URL: raw, Connected: connected, Protocol: a.Proto, Status: a.Status,
			FirstByteMS: float64(a.FirstByte.Microseconds()) / 1000, Headers: a.Header, Body: string(body)}, nil)
	}
	if f.head {
		fmt.Printf("%s %d %s\n", a.Proto, a.Status, http.StatusText(a.Status))
		for _, name := range slices.Sorted(keys(a.Header)) {
			for _, v := range a.Header[name] {
				fmt.Printf("%s: %s\n", name, v)
			}
		}
		fmt.Println()
	}
	if _, err := io.Copy(os.Stdout, a.Body); err != nil {
		return fmt.Errorf("read the answer: %w", err)
	}
	return nil
}

func keys(h http.Header) func(func(string) bool) {
	return func(yield func(string) bool) {
		for k := range h {
			if !yield(k) {
				return
			}
		}
	}
}

func buildRequest(c *cobra.Command, f *requestFlags, raw string) (*http.Request, error) {
	u, err := url.Parse(raw)
	if err != nil || u.Scheme != "https" || u.Host == "" {
		return nil, usagef("%q: want an https:// URL", raw)
	}
	body, err := requestBody(f.data)
	if err != nil {
		return nil, err
	}
	method := f.method
	switch {
	case method != "":
	case f.data != "":
		method = http.MethodPost
	default:
		method = http.MethodGet
	}
	r, err := http.NewRequestWithContext(c.Context(), method, raw, body)
	if err != nil {
		return nil, usageError{err}
	}
	for _, h := range f.headers {
		name, value, ok := strings.Cut(h, ":")
		if !ok {
			return nil, usagef("header %q: want 'Name: value'", h)
		}
		r.Header.Add(strings.TrimSpace(name), strings.TrimSpace(value))
	}
	if h := r.Header.Get("Host"); h != "" {
		r.Host = h
		r.Header.Del("Host")
	}
	return r, nil
}

func requestBody(data string) (io.Reader, error) {
	switch {
	case data == "":
		return nil, nil
	case data == "@-":
		return os.Stdin, nil
	case data[0] == '@':
		b, err := os.ReadFile(data[1:])
		if err != nil {
			return nil, fmt.Errorf("request body: %w", err)
		}
		return strings.NewReader(string(b)), nil
	default:
		return strings.NewReader(data), nil
	}
}

// connection decides the version, the address and the CA. A target is needed only for --pop.
func connection(c *cobra.Command, o *options, f *requestFlags, u *url.URL) (request.Config, error) {
	conf := request.Config{Version: request.HTTP2, Connect: f.connect, CAFile: f.ca}
	switch {
	case f.http1:
		conf.Version = request.HTTP1
	case f.http3:
		conf.Version = request.HTTP3
	}
	t, err := o.find()
	if err != nil && (f.pop != "" || o.target != "") {
		return conf, err
	}
	if conf.CAFile == "" && err == nil {
		conf.CAFile = t.EdgeCA
	}
	if f.pop != "" {
		conf.Connect, err = popAddress(c, t, f.pop, u)
		return conf, err
	}
	return conf, nil
}

// popAddress asks the fleet where the PoP is reached. The URL's port wins over the node's where it names one.
func popAddress(c *cobra.Command, t target.Target, pop string, u *url.URL) (string, error) {
	api, err := dialAPI(t)
	if err != nil {
		return "", err
	}
	defer api.Close()
	fleet, err := api.Fleet(c.Context())
	if err != nil {
		return "", fmt.Errorf("%w\n--pop asks the control node where PoP %s is; --connect IP:PORT asks that address itself, without control", err, pop)
	}
	var names []string
	for _, n := range fleet.Nodes {
		if n.PoP == pop || n.Name == pop {
			host, port, err := net.SplitHostPort(n.Public)
			if err != nil {
				return "", fmt.Errorf("PoP %s: its node %s announces the address %q: %w", pop, n.Name, n.Public, err)
			}
			if p := u.Port(); p != "" {
				port = p
			}
			return net.JoinHostPort(host, port), nil
		}
		if n.PoP != "" && !slices.Contains(names, n.PoP) {
			names = append(names, n.PoP)
		}
	}
	slices.Sort(names)
	return "", missingf("no PoP is named %q; the fleet has: %s", pop, strings.Join(names, ", "))
}
