package listen

import (
	"bytes"
	"crypto/tls"
	"testing"
	"time"
)

func TestConnectionIDs(t *testing.T) {
	g := connectionIDs{[4]byte{1, 2, 3, 4}}
	seen := map[string]bool{}
	for range 100 {
		id, err := g.GenerateConnectionID()
		if err != nil || id.Len() != g.ConnectionIDLen() || !bytes.HasPrefix(id.Bytes(), g.prefix[:]) || seen[id.String()] {
			t.Fatalf("%s, %v", id, err)
		}
		seen[id.String()] = true
	}
}

// A day's tickets are opened on the next day, and not on the one after.
func TestTicketKeysChange(t *testing.T) {
	k := &tickets{secret: [32]byte{1}, plain: &tls.Config{}}
	day := time.Unix(1_800_000_000, 0)
	today := k.of(day)
	if k.of(day.Add(time.Minute)) != today || k.of(day.Add(ticketDay)) == today {
		t.Error("the configuration is not the day's")
	}
	other := &tickets{secret: [32]byte{1}, plain: &tls.Config{}}
	d := day.Unix() / int64(ticketDay/time.Second)
	if k.key(d) != other.key(d) || k.key(d) == k.key(d+1) {
		t.Error("keys are not the secret's and the day's")
	}
}
