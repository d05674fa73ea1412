package node

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/selvage-edge/selvage/control/fleet"
)

// office is what only one server of a node may do at a time: be a member of the
// fleet, answer its peers and the operator, renew the node's certificate. (The
// agent's part, to report and to write the catalog, follows the same sign.)
type office struct {
	node   *node
	stop   context.CancelFunc
	opened sync.WaitGroup
	once   sync.Once
	gossip *fleet.Fleet // nil until it is open; read after opened is done
	parts  sync.WaitGroup
}

// openOffice takes the office as soon as the keeper gives it, which is at once
// when no other server is there.
func (n *node) openOffice(ctx context.Context) *office {
	ctx, stop := context.WithCancel(ctx)
	o := &office{node: n, stop: stop}
	o.opened.Go(func() {
		select {
		case <-n.att.Reign():
		case <-ctx.Done():
			return
		}
		if err := o.open(ctx); err != nil {
			n.path.failed <- err
		}
	})
	return o
}

func (o *office) open(ctx context.Context) (err error) {
	o.parts.Go(func() { o.node.member.keepFresh(ctx, o.node.log) })
	if o.gossip, err = o.node.gossip(); err != nil {
		return err
	}
	o.node.member.fleet.Store(o.gossip)
	o.node.regroup()
	o.parts.Go(func() { o.node.tellSite(ctx, o.gossip) })
	o.parts.Go(func() { o.node.keepMembers(ctx, o.gossip) })
	if err := o.openDNS(ctx); err != nil {
		return err
	}
	if err := o.node.orders.reread(); err != nil {
		o.node.log.Warn("orders of the server before are not read; control says them again", "err", err)
	}
	o.node.path.startOffice()
	return nil
}

// openDNS answers DNS, if this node is to.
func (o *office) openDNS(ctx context.Context) error {
	dns := o.node.path.dns
	if dns == nil {
		return nil
	}
	if err := dns.Listen(o.node.cfg.DNS.Listen); err != nil {
		return dnsError(err)
	}
	o.parts.Go(func() { dns.Follow(ctx, o.gossip.Members, o.node.agent.Catalog) })
	o.parts.Go(func() {
		select {
		case err := <-dns.Failed():
			o.node.path.failed <- err
		case <-ctx.Done():
		}
	})
	return nil
}

func dnsError(err error) error {
	return fmt.Errorf("dns.listen: %w; stop what answers there ('ss -lntup' names it), or give another address", err)
}

// leave tells the fleet that this node goes. Peers and the operator are
// answered until close.
func (o *office) leave() {
	o.stop()
	o.opened.Wait()
	if o.gossip != nil {
		_ = o.gossip.Leave(time.Second) // others notice all the same, a little later
	}
}

// close gives the office up; for the fleet the node stays.
func (o *office) close() {
	o.once.Do(func() {
		o.stop()
		o.opened.Wait()
		o.node.agent.Retire()
		o.node.member.fleet.Store(nil)
		if o.gossip != nil {
			if err := o.gossip.Close(); err != nil {
				o.node.log.Warn("closing membership", "err", err)
			}
		}
		if dns := o.node.path.dns; dns != nil {
			if err := dns.Close(); err != nil {
				o.node.log.Warn("closing DNS", "err", err)
			}
		}
		o.node.path.closeOffice()
		o.parts.Wait()
	})
}
