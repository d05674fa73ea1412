package keeper

import (
	"net"
	"os"
	"testing"
)

// partedDuty is a duty that is about to become the new program, whose server has closed its link.
func partedDuty(t *testing.T) *duty {
	t.Helper()
	ours, theirs, err := controlPair()
	if err != nil {
		t.Fatal(err)
	}
	theirs.Close()
	l, err := newLink(ours)
	if err != nil {
		t.Fatal(err)
	}
	l.close()
	p := &program{fd: -1, name: "new"}
	s := &server{pid: os.Getpid(), program: p, ready: true}
	s.broker = newBroker(l, nil, "", func(fact, error) {})
	k := &Keeper{own: p, config: Config{Become: true, Event: func(e Event) { t.Errorf("the upgrade ended: %+v", e) }}}
	k.sockets = []socket{{name: PublicTCP, addr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1}, fd: 3}}
	d := &duty{Keeper: k, ctx: t.Context(), heard: make(chan news, 8), over: make(chan struct{}), current: p, serving: s}
	d.change = &change{program: p, was: p, server: s}
	return d
}

// A server that ends before the trial of the next keeper is no refusal of that: the
// trial is made once there is another server, and the keeper waits for it.
func TestTrialWaitsForAServer(t *testing.T) {
	d := partedDuty(t)
	for range 3 {
		d.settle()
	}
	d.work.Wait()
	if c := d.change; c == nil || c.trying || c.tried || c.refused != nil || len(d.heard) > 0 {
		t.Fatalf("%+v, %d heard", c, len(d.heard))
	}
	d.serving = &server{ready: true, program: d.current}
	d.change.tried = true
	d.serving.broker = newBroker(d.change.server.broker.link, nil, "", func(fact, error) {})
	close(d.serving.broker.served())
	d.settle()
	if !d.change.still {
		t.Error("it does not go on with the next server")
	}
	d.work.Wait()
}

// Where it ends after the trial, the keeper does not ask again and again whether it has.
func TestReplacementWaitsForAServer(t *testing.T) {
	d := partedDuty(t)
	d.change.tried = true
	go d.serving.broker.serve()
	d.settle()
	if err := d.hear(<-d.heard); err != nil {
		t.Fatal(err)
	}
	d.settle()
	d.work.Wait()
	if c := d.change; c == nil || c.still || c.refused != nil || len(d.heard) > 0 {
		t.Errorf("%+v, %d heard", c, len(d.heard))
	}
}
