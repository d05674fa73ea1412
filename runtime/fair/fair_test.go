package fair

import (
	"math/rand/v2"
	"testing"
)

// serve gives n turns of one unit each and returns who had how many.
func serve(q *Queue[string], members map[string]*Member[string], n int) map[string]int {
	had := map[string]int{}
	for range n {
		who, ok := q.Next()
		if !ok {
			break
		}
		had[who]++
		members[who].Charge(1000)
	}
	return had
}

func join(q *Queue[string], project, name string, weight int) *Member[string] {
	m := new(Member[string])
	q.Join(m, project, name)
	m.SetWeight(weight)
	return m
}

// Projects share alike whatever is in them; in a project, functions share by their weights.
func TestShares(t *testing.T) {
	q := &Queue[string]{}
	all := map[string]*Member[string]{
		"a1": join(q, "a", "a1", 0), "a2": join(q, "a", "a2", 30), "b": join(q, "b", "b", 100), "quiet": join(q, "c", "quiet", 0),
	}
	for _, name := range []string{"a1", "a2", "b"} {
		all[name].Wait()
		all[name].Wait() // once is enough
	}
	had := serve(q, all, 8000)
	for name, want := range map[string]int{"a1": 1000, "a2": 3000, "b": 4000, "quiet": 0} {
		if d := had[name] - want; d < -5 || d > 5 {
			t.Errorf("%s had %d turns of 8000, want %d", name, had[name], want)
		}
	}
	// Who comes late has no claim to what it did not use.
	all["quiet"].Wait()
	if had := serve(q, all, 300); had["quiet"] < 95 || had["quiet"] > 105 {
		t.Errorf("the late one had %d turns of 300", had["quiet"])
	}
}

// Whatever joins, waits, withdraws and quits: who is next waits, and nobody is left over.
func TestComingAndGoing(t *testing.T) {
	q := &Queue[string]{Memory: 5000}
	r := rand.New(rand.NewPCG(1, 2))
	names := []string{"a", "b", "c", "d", "e", "f"}
	all := map[string]*Member[string]{}
	for range 20_000 {
		name := names[r.IntN(len(names))]
		m := all[name]
		switch {
		case m == nil:
			all[name] = join(q, "p"+string(name[0]%3+'0'), name, r.IntN(101))
		case r.IntN(4) == 0:
			m.Charge(int64(r.IntN(9000)))
		case !m.Waiting():
			if r.IntN(2) == 0 {
				m.Wait()
			} else {
				m.Quit()
				delete(all, name)
			}
		default:
			m.Withdraw()
		}
		waiting := 0
		for _, m := range all {
			if m.Waiting() {
				waiting++
			}
		}
		who, ok := q.Next()
		if ok != (waiting > 0) || ok && !all[who].Waiting() {
			t.Fatalf("next %q, %t; %d wait", who, ok, waiting)
		}
	}
	for _, m := range all {
		m.Withdraw()
		m.Quit()
	}
	if q.Projects() != 0 || q.Known() != 0 {
		t.Errorf("%d projects wait, %d are known", q.Projects(), q.Known())
	}
}
