package peer

import (
	"context"
	"net/http"
	"time"
)

// signPath is where every Server says that it lives. One of a version that does not know
// it says so too, with whatever it answers.
const signPath = "/peer/v1/alive"

// Sign asks all addresses at once for a sign of life, until ctx ends; the first that gives
// one is preferred from then on. Its error is one of theirs.
func (c *Client) Sign(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	addresses := c.Addresses()
	answers := make(chan error, len(addresses))
	for _, addr := range addresses {
		go func() { answers <- c.signOf(ctx, addr) }() // all are waited for below
	}
	err := error(errNoAddress)
	for range addresses {
		if one := <-answers; one == nil {
			err = nil
			cancel()
		} else if err != nil {
			err = one
		}
	}
	return err
}

func (c *Client) signOf(ctx context.Context, addr string) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, signPath, nil)
	if err != nil {
		return err
	}
	resp, err := c.try(r, addr)
	if err != nil {
		return err
	}
	c.prefer(addr)
	return resp.Body.Close()
}

// Heard is when anything came on any of the client's connections last.
func (c *Client) Heard() time.Time { return c.conns.lastHeard() }

// Drop ends the connections that were made before a time, and what is under way on them.
func (c *Client) Drop(before time.Time) { c.conns.drop(before) }
