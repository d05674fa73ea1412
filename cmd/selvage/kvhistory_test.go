package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/selvage-edge/selvage/runtime/hostcall"
)

// ask is one operation on one key, which holds a number.
type ask struct {
	key, kind string // get, put, remove or increment
	value     int64  // put, or added
	at        int64  // the expected revision of put and remove
}

// number is what a key holds, as the model has it.
type number struct {
	there    bool
	value    int64
	revision uint64 // 0: not known, since the write had no answer
	last     uint64 // the newest revision that is known: the next is above it
}

// wrote is n after a write with this revision; 0 if it is not known.
func (n number) wrote(there bool, value int64, revision uint64) number {
	return number{there, value, revision, max(n.last, revision)}
}

// meets reports whether the key can be, and whether it must be, at the expected revision.
func (n number) meets(at int64) (can, must bool) {
	switch {
	case at == hostcall.AnyRevision:
		return true, true
	case at == hostcall.AbsentRevision || !n.there:
		same := n.there == (at != hostcall.AbsentRevision)
		return same, same
	case n.revision == 0:
		return uint64(at) > n.last, false
	}
	return uint64(at) == n.revision, uint64(at) == n.revision
}

// after is what n may be once q gave a: nothing, if it cannot have given that.
func (n number) after(q ask, a answer) []any {
	if q.kind == "get" {
		return n.afterGet(a)
	}
	can, must := n.meets(q.at)
	next := number{}
	switch q.kind {
	case "put":
		next = n.wrote(true, q.value, a.revision)
	case "increment":
		next = n.wrote(true, n.value+q.value, a.revision)
	case "remove":
		next = n.wrote(false, 0, a.revision)
		if can = can && n.there; a.came == missing || a.came == done && a.absent {
			return when(!n.there, n)
		}
	}
	switch a.came {
	case refused:
		return when(!must, n)
	case maybe:
		return append(when(can, next), n)
	}
	return when(can && a.came == done && a.revision > n.last && (q.kind != "increment" || a.sum == next.value), next)
}

func (n number) afterGet(a answer) []any {
	if a.came == missing {
		return when(!n.there, n)
	}
	value, err := strconv.ParseInt(string(a.value), 10, 64)
	at := a.revision == n.revision || n.revision == 0 && a.revision > n.last
	return when(err == nil && n.there && value == n.value && at, n.wrote(true, value, a.revision))
}

func when(ok bool, n number) []any {
	if ok {
		return []any{n}
	}
	return nil
}

// numbers is the model that histories are checked against, each key for itself.
var numbers = func() porcupine.Model {
	m := porcupine.NondeterministicModel{
		Init: func() []any { return []any{number{}} },
		Step: func(state, in, out any) []any { return state.(number).after(in.(ask), out.(answered).answer()) },
		Partition: func(history []porcupine.Operation) (parts [][]porcupine.Operation) {
			at := map[string]int{}
			for _, op := range history {
				key := op.Input.(ask).key
				i, ok := at[key]
				if !ok {
					i = len(parts)
					at[key], parts = i, append(parts, nil)
				}
				parts[i] = append(parts[i], op)
			}
			return parts
		},
	}
	return m.ToModel()
}()

// answered is an answer as the checker compares it.
type answered struct {
	came     came
	value    string
	revision uint64
	sum      int64
	absent   bool
}

func (a answered) answer() answer {
	return answer{came: a.came, value: []byte(a.value), revision: a.revision, sum: a.sum, absent: a.absent}
}

// history is what some clients asked at the same time, and when they were answered.
type history struct {
	kv    *truth
	begin time.Time
	back  chan struct{} // closed when control is there again
	mu    struct {
		sync.Mutex
		ops []porcupine.Operation
	}
	over chan struct{} // one for each that somebody took
}

// client asks so many times; what nobody took is asked again when control is back.
func (h *history) client(ctx context.Context, id int, r *rand.Rand, keys []string, asks int) error {
	seen := map[string]uint64{}
	for range asks {
		q := randomAsk(r, keys, seen)
		for {
			began := time.Since(h.begin)
			a, err := h.kv.ask(ctx, q)
			if err != nil {
				return err
			}
			h.note(id, q, a, began)
			if a.revision > 0 {
				seen[q.key] = a.revision
			}
			if a.came != never {
				h.over <- struct{}{}
				break
			}
			select {
			case <-h.back:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}
	return nil
}

func randomAsk(r *rand.Rand, keys []string, seen map[string]uint64) ask {
	q := ask{key: keys[r.IntN(len(keys))], value: r.Int64N(1000), at: hostcall.AnyRevision}
	switch n := r.IntN(10); {
	case n < 3:
		q.kind = "get"
	case n < 7:
		q.kind = "put"
	case n < 9:
		q.kind = "increment"
	default:
		q.kind = "remove"
	}
	if last := seen[q.key]; (q.kind == "put" || q.kind == "remove" && last > 0) && r.IntN(3) > 0 {
		q.at = int64(last) // 0 for a key not seen yet: only if it is not there
	}
	return q
}

func (k *truth) ask(ctx context.Context, q ask) (answer, error) {
	switch q.kind {
	case "put":
		return k.put(ctx, q.key, strconv.AppendInt(nil, q.value, 10), nil, q.at)
	case "remove":
		return k.remove(ctx, q.key, q.at)
	case "increment":
		return k.increment(ctx, q.key, q.value)
	}
	return k.get(ctx, q.key)
}

// note adds an operation. One without an answer may take its place at any time from then on; a read of that kind says nothing.
func (h *history) note(id int, q ask, a answer, began time.Duration) {
	if a.came == never || a.came == maybe && q.kind == "get" {
		return
	}
	ended := time.Since(h.begin)
	if a.came == maybe {
		ended = time.Hour
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.mu.ops = append(h.mu.ops, porcupine.Operation{ClientId: id, Input: q, Call: began.Nanoseconds(),
		Output: answered{a.came, string(a.value), a.revision, a.sum, a.absent}, Return: ended.Nanoseconds()})
}

// Concurrent puts, conditional ones, increments, deletions and strong reads of a few keys,
// with control killed and started again among them, are as if one came after the other.
// SELVAGE_KV_HISTORIES is how many of them, SELVAGE_KV_SEED=N replays what is asked.
func TestHistoriesAreLinearizable(t *testing.T) {
	w := openWorld(t, "127.0.8.20")
	count, seed := int(setting(t, "SELVAGE_KV_HISTORIES", 8)), setting(t, "SELVAGE_KV_SEED", rand.Uint64())
	t.Logf("SELVAGE_KV_SEED=%d replays this", seed)
	w.selvage(t, "kv", "create", "numbers").expect(t, exitOK)
	w.end(w.Layout.Edges[0])
	kv := w.truth(t, "numbers")
	unanswered := 0
	for i := range count {
		ops := w.oneHistory(t, kv, rand.New(rand.NewPCG(seed, uint64(i))), i)
		for _, op := range ops {
			if op.Output.(answered).came == maybe {
				unanswered++
			}
		}
		switch res, info := porcupine.CheckOperationsVerbose(numbers, ops, time.Minute); res {
		case porcupine.Illegal:
			t.Fatalf("history %d: %s; linearizations %v of\n%s", i, res, info.PartialLinearizations(), listed(ops))
		case porcupine.Unknown:
			t.Logf("history %d: not checked to its end in a minute", i)
		}
	}
	t.Logf("%d histories; of %d writes nobody knows whether they were done", count, unanswered)
}

// oneHistory has clients ask, kills control once some were answered, and starts it again.
func (w *world) oneHistory(t *testing.T, kv *truth, r *rand.Rand, number int) []porcupine.Operation {
	t.Helper()
	const clients, asks = 6, 12
	h := &history{kv: kv, begin: time.Now(), back: make(chan struct{}), over: make(chan struct{}, clients*asks)}
	keys := []string{fmt.Sprint(number, "/a"), fmt.Sprint(number, "/b"), fmt.Sprint(number, "/c")}
	errs := make([]error, clients)
	var all sync.WaitGroup
	for id := range clients {
		mine := rand.New(rand.NewPCG(r.Uint64(), uint64(id)))
		all.Go(func() { errs[id] = h.client(t.Context(), id, mine, keys, asks) })
	}
	for range 1 + r.IntN(clients*asks/2) {
		<-h.over // an ask is over within its time, whatever comes of it
	}
	time.Sleep(time.Duration(r.IntN(3000)) * time.Microsecond) // any moment of a write, not only its end
	kill9(t, w.Control.PID())
	w.restartControl(t)
	close(h.back)
	all.Wait()
	for id, err := range errs {
		if err != nil {
			t.Fatalf("client %d: %v", id, err)
		}
	}
	for _, key := range keys { // what is there in the end
		began := time.Since(h.begin)
		a, err := certain(t.Context(), func() (answer, error) { return kv.get(t.Context(), key) })
		if err != nil {
			t.Fatal(err)
		}
		h.note(clients, ask{key: key, kind: "get"}, a, began)
	}
	return h.mu.ops
}

func listed(ops []porcupine.Operation) (text string) {
	for _, op := range ops {
		text += fmt.Sprintf("%9d to %9d us, client %d: %+v: %+v\n", op.Call/1000, op.Return/1000, op.ClientId, op.Input, op.Output)
	}
	return text
}

// The model itself: what it must not let pass.
func TestTheModelOfNumbersRefuses(t *testing.T) {
	put := func(call, ret int64, value int64, at int64, out answered) porcupine.Operation {
		return porcupine.Operation{Input: ask{key: "k", kind: "put", value: value, at: at}, Output: out, Call: call, Return: ret}
	}
	get := func(call, ret int64, out answered) porcupine.Operation {
		return porcupine.Operation{Input: ask{key: "k", kind: "get", at: hostcall.AnyRevision}, Output: out, Call: call, Return: ret}
	}
	add := func(call, ret int64, out answered) porcupine.Operation {
		return porcupine.Operation{Input: ask{key: "k", kind: "increment", value: 1, at: hostcall.AnyRevision}, Output: out, Call: call, Return: ret}
	}
	gone := func(call, ret int64, out answered) porcupine.Operation {
		return porcupine.Operation{Input: ask{key: "k", kind: "remove", at: hostcall.AnyRevision}, Output: out, Call: call, Return: ret}
	}
	const end = 1000
	anyone, lost := hostcall.AnyRevision, answered{came: maybe}
	for name, c := range map[string]struct {
		want porcupine.CheckResult
		ops  []porcupine.Operation
	}{
		"a put and its read":                {porcupine.Ok, []porcupine.Operation{put(0, 1, 7, anyone, answered{revision: 3}), get(2, 3, answered{value: "7", revision: 3})}},
		"an acknowledged put lost":          {porcupine.Illegal, []porcupine.Operation{put(0, 1, 7, anyone, answered{revision: 3}), get(2, 3, answered{came: missing})}},
		"a put without answer, done":        {porcupine.Ok, []porcupine.Operation{put(0, end, 7, anyone, lost), get(2, 3, answered{value: "7", revision: 3})}},
		"a put without answer, not done":    {porcupine.Ok, []porcupine.Operation{put(0, end, 7, anyone, lost), get(2, 3, answered{came: missing})}},
		"done and then not":                 {porcupine.Illegal, []porcupine.Operation{put(0, end, 7, anyone, lost), get(2, 3, answered{value: "7", revision: 3}), get(4, 5, answered{came: missing})}},
		"done twice":                        {porcupine.Illegal, []porcupine.Operation{put(0, end, 7, anyone, lost), get(2, 3, answered{value: "7", revision: 3}), get(4, 5, answered{value: "7", revision: 4})}},
		"a stale read":                      {porcupine.Illegal, []porcupine.Operation{put(0, 1, 7, anyone, answered{revision: 3}), put(2, 3, 8, anyone, answered{revision: 4}), get(4, 5, answered{value: "7", revision: 3})}},
		"a revision that goes back":         {porcupine.Illegal, []porcupine.Operation{put(0, 1, 7, anyone, answered{revision: 3}), put(2, 3, 8, anyone, answered{revision: 2})}},
		"two win one revision":              {porcupine.Illegal, []porcupine.Operation{put(0, 1, 7, 0, answered{revision: 3}), put(0, 9, 8, 3, answered{revision: 4}), put(0, 9, 9, 3, answered{revision: 5})}},
		"refused though it was met":         {porcupine.Illegal, []porcupine.Operation{put(0, 1, 7, anyone, answered{revision: 3}), put(2, 3, 8, 3, answered{came: refused})}},
		"a lost update":                     {porcupine.Illegal, []porcupine.Operation{add(0, 9, answered{sum: 1, revision: 1}), add(0, 9, answered{sum: 1, revision: 2})}},
		"both counted":                      {porcupine.Ok, []porcupine.Operation{add(0, 9, answered{sum: 2, revision: 2}), add(0, 9, answered{sum: 1, revision: 1})}},
		"a deletion undone":                 {porcupine.Illegal, []porcupine.Operation{put(0, 1, 7, anyone, answered{revision: 3}), gone(2, 3, answered{revision: 4}), get(4, 5, answered{value: "7", revision: 3})}},
		"nothing to delete, though it was":  {porcupine.Illegal, []porcupine.Operation{put(0, 1, 7, anyone, answered{revision: 3}), gone(2, 3, answered{absent: true})}},
		"a deletion without answer, either": {porcupine.Ok, []porcupine.Operation{put(0, 1, 7, anyone, answered{revision: 3}), gone(2, end, lost), get(4, 5, answered{value: "7", revision: 3}), get(6, 7, answered{came: missing})}},
	} {
		if got := porcupine.CheckOperationsTimeout(numbers, c.ops, time.Minute); got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
}
