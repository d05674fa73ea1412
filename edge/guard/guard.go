// Package guard keeps what is not well-formed HTTP from getting further, and
// gives every other room one canonical host and path.
package guard

import (
	"crypto/tls"
	"net/http"
	"strings"
)

// Limits of a request head, the same for every protocol.
const (
	MaxURLBytes  = 16 << 10 // path and query: 414 beyond
	MaxHeadBytes = 32 << 10 // request line and header fields: 431 beyond
	MaxHeadLines = 128      // header fields: 431 beyond
)

// headOverhead is what a field adds to its name and value on the wire of
// HTTP/1.1: ": " and CRLF.
const headOverhead = 4

// PrivatePrefix begins the names of the header fields that only a node sets; a
// client's are removed.
const PrivatePrefix = "Selvage-"

// Canon is a request's canonical address: what routes, caches and functions see.
type Canon struct {
	Host  string // see Host
	Port  string // "" if it is 443 or none was named
	Path  string // see Path
	Query string // without "?", see Query
}

// Authority returns the host, with the port if it is not the default.
func (c Canon) Authority() string {
	if c.Port == "" {
		return c.Host
	}
	return c.Host + ":" + c.Port
}

// Target returns the path and, if there is one, "?" and the query.
func (c Canon) Target() string {
	if c.Query == "" {
		return c.Path
	}
	return c.Path + "?" + c.Query
}

// Guard decides which requests are let in.
type Guard struct {
	// Covers reports whether the certificate that was chosen for the TLS server
	// name sni is also good for host. Nil means only when they are equal. It
	// decides RFC 9110 §7.4: a request for another host is misdirected (421).
	Covers func(sni, host string) bool
}

// Request checks r and returns its canonical address. It removes the header
// fields that nobody must trust: names with an underscore (origins confuse it
// with the hyphen) and the node's own (PrivatePrefix). Errors are *Error.
func (g *Guard) Request(r *http.Request) (Canon, error) {
	if err := verdict(r); err != nil {
		return Canon{}, err
	}
	if err := checkLine(r); err != nil {
		return Canon{}, err
	}
	if err := checkHead(r); err != nil {
		return Canon{}, err
	}
	c, err := canonical(r)
	if err != nil {
		return Canon{}, err
	}
	return c, g.checkName(r.TLS, c.Host)
}

var (
	errMethod  = bad("method", "the method is not an upper-case token")
	errConnect = refuse(http.StatusNotImplemented, "connect", "CONNECT is not supported")
	errVersion = refuse(http.StatusHTTPVersionNotSupported, "version", "this HTTP version is not supported")
	errExpect  = refuse(http.StatusExpectationFailed, "expect", "only Expect: 100-continue is supported")
	errURL     = refuse(http.StatusRequestURITooLong, "url-too-long", "the URL is longer than 16 KiB")
	errHead    = refuse(http.StatusRequestHeaderFieldsTooLarge, "head-too-large", "the request head is larger than 32 KiB")
	errLines   = refuse(http.StatusRequestHeaderFieldsTooLarge, "head-lines", "the request has more than 128 header fields")
	errEarly   = refuse(http.StatusTooEarly, "early", "send the request again after the handshake")
	errSNI     = refuse(http.StatusMisdirectedRequest, "misdirected", "this connection was opened for another host")
)

// checkLine checks method, version and target length.
func checkLine(r *http.Request) error {
	switch {
	case r.Method == http.MethodConnect:
		return errConnect
	case !isMethod(r.Method):
		return errMethod
	case r.ProtoMajor == 1 && r.ProtoMinor > 1, r.ProtoMajor < 1, r.ProtoMajor > 3:
		return errVersion
	case len(r.RequestURI) > MaxURLBytes:
		return errURL
	}
	return nil
}

// isMethod accepts upper-case tokens: methods are case-sensitive, and one in
// lower case is taken for another by half of what may stand behind us.
func isMethod(m string) bool {
	if m == "" || len(m) > 32 {
		return false
	}
	for i := range len(m) {
		if c := m[i]; (c < 'A' || c > 'Z') && c != '-' && c != '_' {
			return false
		}
	}
	return m != "PRI" // the preface of HTTP/2 is not a request
}

// checkHead counts the header fields and drops those nobody must trust.
func checkHead(r *http.Request) error {
	size, lines := len(r.Method)+len(r.RequestURI)+len(r.Proto)+len("Host")+len(r.Host)+2*headOverhead, 1
	for name, values := range r.Header {
		for _, v := range values {
			size += len(name) + len(v) + headOverhead
		}
		lines += len(values)
		if strings.HasPrefix(name, PrivatePrefix) || strings.IndexByte(name, '_') >= 0 {
			delete(r.Header, name)
		}
	}
	switch {
	case size > MaxHeadBytes:
		return errHead
	case lines > MaxHeadLines:
		return errLines
	}
	if e := r.Header["Expect"]; len(e) > 0 && (len(e) > 1 || !strings.EqualFold(e[0], "100-continue")) {
		return errExpect
	}
	return nil
}

func canonical(r *http.Request) (c Canon, err error) {
	if c.Host, c.Port, err = Host(r.Host); err != nil {
		return c, err
	}
	if c.Port == "443" {
		c.Port = ""
	}
	path, query, _ := strings.Cut(originForm(r.RequestURI), "?")
	if path == "*" && r.Method == http.MethodOptions {
		c.Path = path // asterisk-form: no route has it
		return c, nil
	}
	if c.Path, err = Path(path); err != nil {
		return c, err
	}
	c.Query, err = Query(query)
	return c, err
}

// originForm strips scheme and authority of an absolute-form target (RFC 9112
// §3.2.2); net/http has already taken the host from it.
func originForm(target string) string {
	if strings.HasPrefix(target, "/") {
		return target
	}
	_, rest, ok := strings.Cut(target, "://")
	if !ok {
		return target
	}
	i := strings.IndexAny(rest, "/?#")
	if i < 0 {
		return "/"
	}
	if rest[i] != '/' {
		return "/" + rest[i:]
	}
	return rest[i:]
}

// checkName compares the host with the name the connection was opened for. A
// client that names none (an IP literal has no SNI) is left to the routes.
func (g *Guard) checkName(state *tls.ConnectionState, host string) error {
	if state == nil {
		return nil
	}
	if !state.HandshakeComplete {
		return errEarly
	}
	if state.ServerName == "" {
		return nil
	}
	sni, _, err := Host(state.ServerName)
	if err != nil {
		return errSNI
	}
	if sni == host || g.Covers != nil && g.Covers(sni, host) {
		return nil
	}
	return errSNI
}
