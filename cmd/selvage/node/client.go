package node

import (
	"errors"
	"io"
	"net/http"
	"sync"

	"github.com/selvage-edge/selvage/control/identity"
	"github.com/selvage-edge/selvage/control/peer"
)

// client reaches a node, for as long as it is who it was. One that is retired takes
// nothing new, and closes once nothing is under way by it.
type client struct {
	*peer.Client
	want identity.Expect
	mu   struct {
		sync.Mutex
		underWay int
		retired  bool
	}
}

// errRetired is of a request that was not sent: the node left the list meanwhile.
var errRetired = errors.New("the node has left")

// unsent reports whether nothing of a request was sent.
func unsent(err error) bool { return errors.Is(err, errRetired) || peer.Unsent(err) }

// Do sends r as peer.Client.Do does. It is under way until the answer's body is closed.
func (c *client) Do(r *http.Request) (*http.Response, error) {
	if !c.begin() {
		return nil, errRetired
	}
	resp, err := c.Client.Do(r)
	if err != nil {
		c.end()
		return nil, err
	}
	resp.Body = &underWay{resp.Body, sync.OnceFunc(c.end)}
	return resp, nil
}

func (c *client) begin() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mu.retired {
		return false
	}
	c.mu.underWay++
	return true
}

func (c *client) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mu.underWay--
	c.closeIdle()
}

func (c *client) retire() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mu.retired = true
	c.closeIdle()
}

// closeIdle closes a retired client that is done. c.mu is held.
func (c *client) closeIdle() {
	if c.mu.retired && c.mu.underWay == 0 {
		c.Close()
	}
}

// over reports whether a retired client has closed.
func (c *client) over() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.mu.underWay == 0
}

// underWay is the body of an answer.
type underWay struct {
	io.ReadCloser
	end func()
}

func (u *underWay) Close() error {
	err := u.ReadCloser.Close()
	u.end()
	return err
}
