package node

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/selvage-edge/selvage/control/report"
)

func TestOrders(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state", "orders.json")
	var applied report.Orders
	open := func() *orders {
		t.Helper()
		o, err := openOrders(path, func(r report.Orders) { applied = r })
		if err != nil {
			t.Fatal(err)
		}
		return o
	}
	o := open()
	for i, c := range []struct {
		given report.Orders
		drain bool
	}{
		{report.Orders{Epoch: 1}, false},
		{report.Orders{Epoch: 1, Revision: 5, Drain: true}, true},
		{report.Orders{Epoch: 1, Revision: 4}, true}, // overtaken
		{report.Orders{Epoch: 1, Revision: 5}, true}, // the same again says nothing new
		{report.Orders{Epoch: 1, Revision: 7}, false},
		{report.Orders{Epoch: 1, Revision: 9, Drain: true}, true},
		{report.Orders{Epoch: 2}, false}, // a restored store knows nothing of it
		{report.Orders{Epoch: 2, Revision: 1, Drain: true}, true},
	} {
		if err := o.take(c.given); err != nil {
			t.Fatal(err)
		}
		if o.draining() != c.drain || applied.Drain != c.drain {
			t.Errorf("%d: after %+v it drains: %v, applied %+v", i, c.given, o.draining(), applied)
		}
	}
	applied = report.Orders{}
	if o = open(); !o.draining() || !applied.Drain {
		t.Error("a restart forgot the orders")
	}
	if err := os.WriteFile(path, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	o, err := openOrders(path, func(report.Orders) {})
	if err == nil || o == nil || o.draining() {
		t.Errorf("damaged: %v, %v", o, err)
	}
}
