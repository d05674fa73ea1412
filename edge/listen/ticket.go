package listen

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"encoding/binary"
	"sync"
	"time"
)

// ticketDay is how long one key makes tickets; it opens them for as long again.
const ticketDay = 24 * time.Hour

// withTickets returns c with session tickets that every server with the same
// secret makes and opens alike. Who learns a day's key opens that day's tickets
// only; TLS 1.3 mixes a fresh exchange into each resumption all the same.
func withTickets(secret [32]byte, c *tls.Config) *tls.Config {
	if secret == [32]byte{} {
		return c
	}
	t := &tickets{secret: secret, plain: c.Clone()}
	c.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) { return t.of(time.Now()), nil }
	return c
}

// tickets keeps the configuration of the day.
type tickets struct {
	secret [32]byte
	plain  *tls.Config
	mu     struct {
		sync.Mutex
		day   int64
		today *tls.Config
	}
}

func (t *tickets) of(now time.Time) *tls.Config {
	day := now.Unix() / int64(ticketDay/time.Second)
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.mu.today == nil || t.mu.day != day {
		c := t.plain.Clone()
		c.SetSessionTicketKeys([][32]byte{t.key(day), t.key(day - 1)})
		t.mu.day, t.mu.today = day, c
	}
	return t.mu.today
}

func (t *tickets) key(day int64) (k [32]byte) {
	m := hmac.New(sha256.New, t.secret[:])
	m.Write(binary.BigEndian.AppendUint64([]byte("tls ticket "), uint64(day)))
	copy(k[:], m.Sum(nil))
	return k
}
