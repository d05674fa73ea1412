// Package peer owns the mTLS HTTP/2 connections between the processes of a fleet.
package peer

import (
	"context"
	"net"
	"net/http"

	"github.com/selvage-edge/selvage/control/identity"
)

// From returns the verified identity of the request's sender; false outside a peer Server.
func From(ctx context.Context) (identity.Peer, bool) { panic("not yet") }

// Only lets requests from peers of kind through and answers 403 to others.
func Only(kind identity.Kind, h http.Handler) http.Handler { panic("not yet") }

// ServerConfig says what a Server serves.
type ServerConfig struct {
	Member  *identity.Member
	Handler http.Handler
}

// Server answers peers.
type Server struct{}

// NewServer returns a server that does not listen yet.
func NewServer(c ServerConfig) (*Server, error) { panic("not yet") }

// Serve answers on a plain TCP listener until Close; it returns nil after Close. It closes l.
func (s *Server) Serve(l net.Listener) error { panic("not yet") }

// Close lets requests under way end until ctx is done, ends the rest, and waits for all.
// Streams see their request's context cancelled at once.
func (s *Server) Close(ctx context.Context) error { panic("not yet") }

// ClientConfig says whom a Client talks to.
type ClientConfig struct {
	Member    *identity.Member
	Expect    identity.Expect // whom every address must prove to be
	Addresses []string        // host:port, tried in order from the one that last worked
}

// Client talks to one peer, or to any of several equals, over few long-lived connections.
type Client struct{}

// NewClient returns a client; it connects when first used.
func NewClient(c ClientConfig) (*Client, error) { panic("not yet") }

// Do sends r, whose URL has only path and query (http.NewRequest with "/peer/v1/..." will do). If an address cannot be
// reached, the next is tried; a request whose body cannot be sent again (no GetBody) only while none of it was sent.
// There is no overall timeout: bound it by r's context. Waiting for the response head is bounded by HeaderTimeout.
func (c *Client) Do(r *http.Request) (*http.Response, error) { panic("not yet") }

// SetAddresses replaces the list.
func (c *Client) SetAddresses(addresses []string) { panic("not yet") }

// Close ends all connections.
func (c *Client) Close() { panic("not yet") }
