package geodns

import (
	"cmp"
	"math"
	"slices"
)

// earth is the mean radius, in km (IUGG).
const earth = 6371.0088

// vector is a place as a point on the unit sphere: of two places the nearer one
// along the great circle is the nearer one on the straight line, too.
type vector [3]float64

func vectorOf(latitude, longitude float64) vector {
	sinLat, cosLat := math.Sincos(latitude * math.Pi / 180)
	sinLon, cosLon := math.Sincos(longitude * math.Pi / 180)
	return vector{cosLat * cosLon, cosLat * sinLon, sinLat}
}

// kilometres is the great circle's length over a straight line whose square is d.
func kilometres(d float64) float64 {
	return 2 * earth * math.Asin(math.Min(1, math.Sqrt(max(d, 0))/2))
}

// point is a PoP in a tree.
type point struct {
	at  vector
	far bool // its place is not known: it comes after all others
	pop int32
}

// farther is more than the square of any straight line through the globe.
const farther = 8

// tree finds the nearest of many points: a balanced k-d tree, whose nodes are
// the middles of its slices. The zero value is empty.
type tree struct {
	points []point
	lost   []point // those whose place is not known
}

func plant(points []point) tree {
	var t tree
	for _, p := range points {
		if p.far {
			t.lost = append(t.lost, p)
		}
	}
	t.points = slices.Clone(points)
	known := t.known()
	for i, j := 0, 0; i < len(points); i++ {
		if !points[i].far {
			known[j] = points[i]
			j++
		}
	}
	copy(t.points[len(known):], t.lost)
	split(known, 0)
	return t
}

// known are the points whose place is known.
func (t *tree) known() []point { return t.points[:len(t.points)-len(t.lost)] }

func split(p []point, axis int) {
	if len(p) < 2 {
		return
	}
	slices.SortFunc(p, func(a, b point) int { return cmp.Or(cmp.Compare(a.at[axis], b.at[axis]), cmp.Compare(a.pop, b.pop)) })
	mid := len(p) / 2
	split(p[:mid], (axis+1)%3)
	split(p[mid+1:], (axis+1)%3)
}

// candidate is a point that was found.
type candidate struct {
	dist   float64 // the square of the straight line to it
	score  float64
	pop    int32
	passed bool
}

// nearest gathers the MaxChoices best candidates, best first.
type nearest struct {
	from vector
	n    int
	list [MaxChoices]candidate
}

// worst is the distance at which a candidate is of no more interest.
func (r *nearest) worst() float64 {
	if r.n < MaxChoices {
		return math.Inf(1)
	}
	return r.list[MaxChoices-1].dist
}

func (r *nearest) add(c candidate) {
	if c.dist >= r.worst() {
		return
	}
	if r.n < MaxChoices {
		r.n++
	}
	i := r.n - 1
	for ; i > 0 && (r.list[i-1].dist > c.dist || r.list[i-1].dist == c.dist && r.list[i-1].pop > c.pop); i-- {
		r.list[i] = r.list[i-1]
	}
	r.list[i] = c
}

// search finds the nearest of t.
func (t *tree) search(r *nearest) {
	descend(t.known(), 0, r)
	for _, p := range t.lost {
		r.add(candidate{dist: farther, pop: p.pop})
	}
}

func descend(p []point, axis int, r *nearest) {
	if len(p) == 0 {
		return
	}
	mid := len(p) / 2
	here := &p[mid]
	r.add(candidate{dist: square(here.at, r.from), pop: here.pop})
	off := r.from[axis] - here.at[axis]
	near, other := p[:mid], p[mid+1:]
	if off > 0 {
		near, other = other, near
	}
	descend(near, (axis+1)%3, r)
	if off*off < r.worst() {
		descend(other, (axis+1)%3, r)
	}
}

func square(a, b vector) float64 {
	x, y, z := a[0]-b[0], a[1]-b[1], a[2]-b[2]
	return x*x + y*y + z*z
}
