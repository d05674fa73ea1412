package forward

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"github.com/selvage-edge/selvage/edge/geo"
	"github.com/selvage-edge/selvage/edge/guard"
	"github.com/selvage-edge/selvage/runtime/function"
)

// Path is where a node takes exchanges of others, on its peer listener.
const Path = "/peer/v1/forward"

// What goes with a forwarded exchange. Clients cannot send these: their fields that
// begin with guard.PrivatePrefix are removed.
const (
	envelopeHeader = guard.PrivatePrefix + "Forward"  // of a request: the envelope
	refusedHeader  = guard.PrivatePrefix + "Not-Here" // of an answer: why the node has not touched the request
)

// Envelope is what a node tells another of the exchange that it hands on. It is
// believed of nodes of the fleet only.
type Envelope struct {
	RequestID string         `json:"id"` // 32 hex digits
	Function  function.ID    `json:"function"`
	Authority string         `json:"authority"` // canonical, as telemetry.Meta has it
	Target    string         `json:"target"`    // as the client sent it
	Protocol  string         `json:"protocol"`  // the client's
	Client    netip.AddrPort `json:"client"`    // the zero value if it has none
	Place     *geo.Place     `json:"place,omitempty"`
	Age       time.Duration  `json:"age"` // since the request's head was read
}

// maxAge bounds how old an exchange may say that it is.
const maxAge = time.Hour

func (e *Envelope) validate() error {
	switch {
	case len(e.RequestID) != 32 || strings.Trim(e.RequestID, "0123456789abcdef") != "":
		return errors.New("the request's identity is not 32 hex digits")
	case e.Function.Project == "" || e.Function.Name == "":
		return errors.New("no function is named")
	case e.Protocol != "HTTP/1.0" && e.Protocol != "HTTP/1.1" && e.Protocol != "HTTP/2.0" && e.Protocol != "HTTP/3.0":
		return fmt.Errorf("protocol %.20q is not known", e.Protocol)
	case e.Age < 0 || e.Age > maxAge:
		return fmt.Errorf("age %v: want 0 to %v", e.Age, maxAge)
	case !strings.HasPrefix(e.Target, "/") || len(e.Target) > guard.MaxURLBytes:
		return errors.New("the target is no path, or too long a one")
	case e.Place != nil && e.Place.Validate() != nil:
		return e.Place.Validate()
	}
	return nil
}

// set puts the envelope on a request to another node.
func (e *Envelope) set(h http.Header) error {
	var b bytes.Buffer
	to := json.NewEncoder(&b)
	to.SetEscapeHTML(false) // or each & of a query takes six bytes
	if err := to.Encode(e); err != nil {
		return err
	}
	h[envelopeHeader] = []string{base64.RawURLEncoding.EncodeToString(bytes.TrimSuffix(b.Bytes(), []byte("\n")))}
	return nil
}

// Unpack takes the envelope off a request that another node of the fleet sent, and
// makes of r what the client had sent. Ask it only of whom the caller has
// authenticated.
func Unpack(r *http.Request) (*Envelope, error) {
	text := r.Header[envelopeHeader]
	if len(text) != 1 {
		return nil, fmt.Errorf("forwarded exchange: want one %s", envelopeHeader)
	}
	delete(r.Header, envelopeHeader)
	b, err := base64.RawURLEncoding.Strict().DecodeString(text[0])
	if err != nil {
		return nil, fmt.Errorf("forwarded exchange: %w", err)
	}
	e := &Envelope{}
	if err := json.Unmarshal(b, e); err != nil {
		return nil, fmt.Errorf("forwarded exchange: %w", err)
	}
	if err := e.validate(); err != nil {
		return nil, fmt.Errorf("forwarded exchange: %w", err)
	}
	u, err := url.ParseRequestURI(e.Target)
	if err != nil {
		return nil, fmt.Errorf("forwarded exchange: %w", err)
	}
	r.URL, r.RequestURI, r.Host = u, e.Target, e.Authority
	r.RemoteAddr, r.TLS = "", nil // the peer's: nobody must take them for the client's
	if e.Client.IsValid() {
		r.RemoteAddr = e.Client.String()
	}
	return e, nil
}

// Mark completes the head of an answer to another node: why the request was not
// touched, so that another may be asked, "" if it was, whatever its function says; and
// which trailers come, so that the other has a place for them in its answer.
func Mark(h http.Header, why string) {
	delete(h, refusedHeader)
	if why != "" {
		h[refusedHeader] = []string{why}
	}
	for name := range h {
		if trailer, ok := strings.CutPrefix(name, http.TrailerPrefix); ok {
			h.Add("Trailer", trailer)
		}
	}
}
