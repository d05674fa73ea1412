package replica

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// was is what a copy was once.
type was struct {
	at    Position
	full  Position
	whole bool
	keys  map[string]string
}

func look(t *testing.T, c *Copy) was {
	t.Helper()
	w := was{at: c.Position(), full: c.Complete(), whole: c.Whole(), keys: map[string]string{}}
	err := c.db.use(func(db *pebble.DB) error {
		h := c.head()
		it, err := db.NewIter(h.span("", ""))
		if err != nil {
			return err
		}
		for it.First(); it.Valid(); it.Next() {
			v, err := decodeValue(it.Value())
			if err != nil {
				return err
			}
			w.keys[string(it.Key()[keyBytes:])] = string(v.Value)
		}
		return it.Close()
	})
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func (w was) equal(o was) bool {
	return w.at == o.at && w.full == o.full && w.whole == o.whole && maps.Equal(w.keys, o.keys)
}

// TestPowerCuts cuts the power at many places of a copy's life, each time with another part of what was
// not synced on disk: the copy is then what it was at one of its positions, with all that led there and nothing else,
// and not before the last change that a whole copy acknowledged.
func TestPowerCuts(t *testing.T) {
	for seed := range uint64(10) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) { powerCut(t, rand.New(rand.NewPCG(seed, 7))) })
	}
}

func powerCut(t *testing.T, random *rand.Rand) {
	dir, disk := t.TempDir(), vfs.NewCrashableMem()
	d, _, err := Open(Config{Dir: dir, Spare: 1, fs: disk})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { d.Close() }()
	c := d.Copy(words)
	states, synced := []was{look(t, c)}, 0
	epoch, seq := uint64(1), uint64(0)
	for step := range 200 {
		switch n := random.IntN(40); {
		case n == 0:
			if err := c.Reset(); err != nil {
				t.Fatal(err)
			}
			epoch, seq, synced = epoch+1, 0, len(states)
		case n == 1:
			if err := d.db.Flush(); err != nil {
				t.Fatal(err)
			}
			continue
		default:
			var list []Change
			for range random.IntN(4) {
				seq++
				key := fmt.Sprint(random.IntN(12))
				if random.IntN(4) == 0 {
					list = append(list, Change{Key: key, Gone: true})
				} else {
					list = append(list, put(key, seq, fmt.Sprint(epoch, "/", seq)))
				}
			}
			list = once(list)
			before := c.Whole()
			if n < 10 {
				at := Position{epoch, seq}
				seq += uint64(random.IntN(5))
				err = c.ApplyPage(at, list, seq)
			} else {
				err = c.Apply(Position{epoch, seq}, list, n < 20 || before)
			}
			if err != nil {
				t.Fatal(err)
			}
			if c.Whole() && (!before || len(list) > 0) {
				synced = len(states)
			}
		}
		states = append(states, look(t, c))
		if random.IntN(20) > 0 {
			continue
		}
		left := disk.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: []int{0, 50, 100}[random.IntN(3)], RNG: random})
		d.Close()
		var discarded error
		if d, discarded, err = Open(Config{Dir: dir, Spare: 1, fs: left}); err != nil || discarded != nil {
			t.Fatalf("step %d: %v, discarded %v", step, err, discarded)
		}
		disk, c = left, d.Copy(words)
		now, found := look(t, c), -1
		for i := len(states) - 1; i >= synced && found < 0; i-- {
			if now.equal(states[i]) {
				found = i
			}
		}
		if found < 0 {
			t.Fatalf("step %d: it is %+v; since what was synced it was %+v", step, now, states[synced:])
		}
		if keys, _ := c.Size(); keys != int64(len(now.keys)) {
			t.Errorf("step %d: it counts %d keys and has %d", step, keys, len(now.keys))
		}
		states, synced, seq = []was{now}, 0, now.at.Seq
		if now.at.Epoch == 0 {
			epoch++
		} else {
			epoch = now.at.Epoch
		}
	}
}

// once leaves of each key the last change, as a batch does.
func once(list []Change) (out []Change) {
	for i, ch := range list {
		last := true
		for _, later := range list[i+1:] {
			last = last && later.Key != ch.Key
		}
		if last {
			out = append(out, ch)
		}
	}
	return out
}
