package agent

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/selvage-edge/selvage/control/catalog"
	"github.com/selvage-edge/selvage/control/changes"
	"github.com/selvage-edge/selvage/edge/kv"
	"github.com/selvage-edge/selvage/edge/replica"
	"github.com/selvage-edge/selvage/runtime/hostcall"
)

// told is a KV that counts the batches it is told of.
type told struct {
	*kv.Store
	batches atomic.Int64
}

func (k *told) Apply(ns hostcall.Namespace, c kv.Changes) {
	k.batches.Add(1)
	k.Store.Apply(ns, c)
}

// copiedSpaces returns spaces whose follower does not run, and a database with a whole copy at 1/4.
func copiedSpaces(t *testing.T) (*spaces, *told, *replica.DB) {
	t.Helper()
	store, err := kv.New(kv.Config{Origin: NewOrigin(nil), Timeout: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	dir := replica.Config{Dir: t.TempDir(), Spare: 1}
	db, _, err := replica.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	value := replica.Value{Revision: 4, Value: []byte("v")}
	if err := db.Copy(copied).Apply(replica.Position{Epoch: 1, Seq: 4}, []replica.Change{{Key: "a", Value: value}}, true); err != nil {
		t.Fatal(err)
	}
	k := &told{Store: store}
	return newSpaces(Config[*version]{KV: k, Replica: dir, OnEvent: func(Event) {}}, nil, nil), k, db
}

var links = []catalog.Namespace{{Project: copied.Project, Name: copied.Name, Mode: catalog.ModeReplicated}}

// TestLogIsFollowedFromItsCopy has the copies open while the catalog says that many namespaces
// are wanted: whichever comes first, a log is followed from where its copy is.
func TestLogIsFollowedFromItsCopy(t *testing.T) {
	s, _, db := copiedSpaces(t)
	many := slices.Clone(links)
	for i := range 1000 {
		many = append(many, catalog.Namespace{Project: copied.Project, Name: fmt.Sprint("other-", i)})
	}
	setDB := func(db *replica.DB) (wanted int) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.mu.db = db
		return len(s.mu.byLog)
	}
	for i := range 20 {
		setDB(nil) // so that the copy stays
		s.want(nil)
		var both sync.WaitGroup
		both.Go(func() { s.want(many) })
		both.Go(func() {
			for setDB(db) == 0 {
				setDB(nil)
				runtime.Gosched()
			}
			s.refit()
		})
		both.Wait()
		if p, ok := s.follower.Position(logOf(copied)); !ok || p != (changes.Position{Epoch: 1, Seq: 4}) {
			t.Fatalf("try %d: followed from %v, %v; its copy is at 1/4", i, p, ok)
		}
	}
}

// TestLateBatchLeavesAGapToNobody has a batch come that was asked for before the log had its copy.
func TestLateBatchLeavesAGapToNobody(t *testing.T) {
	s, k, db := copiedSpaces(t)
	s.mu.db = db
	s.want(links)
	apply := func(from, to uint64, told int64) {
		t.Helper()
		err := s.Apply(context.Background(), &changes.Batch{Log: logOf(copied), Epoch: 1, From: from, To: to, At: time.Now()})
		if err != nil || k.batches.Load() != told {
			t.Errorf("(%d,%d]: %v, reads are told of %d batches, want %d", from, to, err, k.batches.Load(), told)
		}
	}
	apply(50, 50, 0)
	apply(4, 60, 1)
	if at := db.Copy(copied).Position(); at.Seq != 60 {
		t.Errorf("the copy is at %v", at)
	}
	apply(4, 50, 2) // what comes from where the copy was may end before what came first
	apply(50, 70, 3)
	if at, whole := db.Copy(copied).Position(), s.mu.byLog[logOf(copied)].attached; at.Seq != 70 || !whole {
		t.Errorf("the copy is at %v, and attached: %v", at, whole)
	}
}

// TestCopiesNobodyWantsGo has the copies open after the catalog has said what is wanted, or before.
func TestCopiesNobodyWantsGo(t *testing.T) {
	for _, first := range []bool{true, false} {
		s, _, db := copiedSpaces(t)
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
		steps := []func(){s.open, func() { s.want(nil) }}
		if first {
			slices.Reverse(steps)
		}
		steps[0]()
		if _, c := s.count(); !first && c.Bytes == 0 {
			t.Error("a copy went before it was known what is wanted")
		}
		steps[1]()
		if _, c := s.count(); s.mu.db == nil || c.Bytes != 0 {
			t.Errorf("wanted first: %v: %d bytes are left of what nobody wants", first, c.Bytes)
		}
		s.close()
	}
}

// TestCopyThatLacksNothingHasNoRoom has no room for a first batch that has no changes: that there
// is none is said, and the copy is not tried again until there is.
func TestCopyThatLacksNothingHasNoRoom(t *testing.T) {
	s, _, db := copiedSpaces(t)
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(s.replica.Dir, &fs); err != nil {
		t.Fatal(err)
	}
	s.replica.Spare = 3 * int64(fs.Bavail) * fs.Bsize // enough to open, not to change
	s.open()
	defer s.close()
	s.want([]catalog.Namespace{{Project: copied.Project, Name: "new", Mode: catalog.ModeReplicated}})
	log := logOf(hostcall.Namespace{Project: copied.Project, Name: "new"})
	if err := s.Apply(context.Background(), &changes.Batch{Log: log, Epoch: 1, To: 5, At: time.Now()}); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, c := s.count(); c.NoRoom != 1 {
			t.Errorf("%+v", c)
		}
		s.refit()
	}
}

// TestCopyThatDoesNotFitIsNotTriedAgain has copies with room for the values of a namespace, but not
// for what the disk has of each besides.
func TestCopyThatDoesNotFitIsNotTriedAgain(t *testing.T) {
	s, _, db := copiedSpaces(t)
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	s.replica.Bytes = 800
	s.open()
	defer s.close()
	s.want([]catalog.Namespace{{Project: copied.Project, Name: "new", Mode: catalog.ModeReplicated}})
	b := changes.Batch{Log: logOf(hostcall.Namespace{Project: copied.Project, Name: "new"}), Epoch: 1, To: 100, At: time.Now()}
	for i := range 100 {
		b.Changes = append(b.Changes, changes.Change{Seq: uint64(i + 1), Key: fmt.Sprintf("%06d", i), Op: changes.Put, Size: 1, Value: []byte("v")})
	}
	if err := s.Apply(context.Background(), &b); err != nil {
		t.Fatal(err)
	}
	s.refit()
	if _, c := s.count(); c.NoRoom != 1 {
		t.Errorf("tried again where it cannot fit: %+v", c)
	}
}
