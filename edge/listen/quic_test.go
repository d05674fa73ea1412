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

// A drain ends when neither an exchange nor a packet was there for a while, and at some
// time after the last exchange whatever the packets.
func TestQuiet(t *testing.T) {
	const linger = 10 // ticks
	for _, c := range []struct {
		name string
		busy int // ticks with an exchange
		move int // ticks with a packet
		want int // the tick at which it is quiet
	}{
		{"nothing", 0, 0, 10},
		{"an exchange", 7, 0, 17},
		{"its answer is sent again", 7, 25, 35},
		{"a client that sends for ever", 7, 1000, 57},
	} {
		at := func(tick int) time.Time { return time.Unix(int64(tick), 0) }
		q, moved := quiet{linger: linger * time.Second, since: at(0), idle: at(0)}, uint64(0)
		tick := 1
		for ; ; tick++ {
			if tick <= c.move {
				moved++
			}
			if q.long(at(tick), tick <= c.busy, moved) {
				break
			}
		}
		if tick != c.want {
			t.Errorf("%s: quiet at %d, want %d", c.name, tick, c.want)
		}
	}
}
