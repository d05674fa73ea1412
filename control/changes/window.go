package changes

import (
	"container/list"
	"slices"
	"time"
)

// window is the newest batches of one log, each continuing the one before.
// Relay.mu guards it.
type window struct {
	log     string
	epoch   uint64
	held    []*held
	bytes   int
	streams map[*relayed]struct{} // told when there is more
}

// held is one sealed batch.
type held struct {
	window   *window
	from, to uint64
	at       time.Time // when control signed it, on its clock
	empty    bool      // it has no change
	page     bool      // there was more behind it
	sealed   []byte
	element  *list.Element // in the relay's order of arrival
}

// mark reports whether h is but a statement that nothing changed.
func (h *held) mark() bool { return h.from == h.to }

// place is where the follower of a relayed log stands.
type place struct {
	Position
	none  bool // there is no position
	tail  bool
	plain bool      // it reads no pages
	at    time.Time // of the newest statement sent
}

// after returns what continues the place, oldest first; false if the window no
// longer has it. What it returns is at most about limit bytes, and one batch.
func (w *window) after(p *place, limit int) (next []*held, ok bool) {
	if len(w.held) == 0 {
		return nil, true
	}
	if p.none {
		return w.begin(p)
	}
	if p.Epoch != w.epoch {
		return nil, false
	}
	if last := w.last(); last.page && last.to < p.Seq {
		return nil, false // this node has begun again: who waits for it to catch up is not fresh meanwhile
	}
	for _, h := range w.held {
		switch {
		case h.to < p.Seq || h.to == p.Seq && !(h.mark() && h.at.After(p.at)):
			continue
		case len(next) == 0 && (h.from > p.Seq || p.plain && h.page):
			return nil, false
		case limit < 0 || p.plain && h.page:
			return next, true
		}
		limit -= len(h.sealed)
		next = append(next, h)
	}
	return next, true
}

// begin serves who has nothing: the newest batch to one that only forgets, if the log goes no further, and to
// others what begins at the beginning.
func (w *window) begin(p *place) ([]*held, bool) {
	if last := w.last(); p.tail {
		return []*held{last}, !last.page
	}
	first := w.held[0]
	return []*held{first}, first.from == 0 && !(p.plain && first.page)
}

// advance notes that h was sent.
func (p *place) advance(epoch uint64, h *held) {
	p.none, p.Epoch = false, epoch
	p.Seq = max(p.Seq, h.to)
	if h.at.After(p.at) {
		p.at = h.at
	}
}

// keep takes a batch that was applied here. One that does not continue the window begins it anew.
func (r *Relay) keep(b *Batch, sealed []byte) {
	if r == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	w := r.window(b.Log)
	h := &held{window: w, from: b.From, to: b.To, at: b.At, empty: len(b.Changes) == 0, page: b.Head > 0, sealed: clip(sealed)}
	if last := w.last(); last != nil {
		switch {
		case w.epoch != b.Epoch || b.From > last.to:
			r.empty(w)
		case b.To < last.to || b.To == last.to && !b.At.After(last.at):
			return
		case last.mark() && h.to == last.to:
			r.drop(w, len(w.held)-1) // the newer statement says the same and more
		}
	}
	w.epoch = b.Epoch
	w.held = append(w.held, h)
	w.bytes += len(h.sealed)
	r.mu.bytes += len(h.sealed)
	h.element = r.mu.order.PushBack(h)
	r.bound(w)
	w.tell()
}

// clip returns b without much room behind it.
func clip(b []byte) []byte {
	if cap(b)-len(b) > len(b)/4 {
		return append([]byte(nil), b...)
	}
	return b
}

// bound drops what is oldest, of this log and then of all.
func (r *Relay) bound(w *window) {
	for len(w.held) > r.cfg.WindowBatches || w.bytes > r.cfg.WindowBytes && len(w.held) > 1 {
		r.drop(w, 0)
	}
	for r.mu.bytes > r.cfg.Bytes && r.mu.order.Len() > 1 {
		oldest := r.mu.order.Front().Value.(*held)
		r.drop(oldest.window, 0) // the oldest of all is the oldest of its log
	}
}

// drop takes the i-th batch out of w.
func (r *Relay) drop(w *window, i int) {
	h := w.held[i]
	r.mu.order.Remove(h.element)
	w.bytes -= len(h.sealed)
	r.mu.bytes -= len(h.sealed)
	w.held[i] = nil
	if i == 0 {
		w.held = w.held[1:]
		return
	}
	w.held = append(w.held[:i], w.held[i+1:]...)
}

func (r *Relay) empty(w *window) {
	for len(w.held) > 0 {
		r.drop(w, len(w.held)-1)
	}
	w.held = nil
}

// forget drops what is held of a log: it is no longer followed, or begins anew.
func (r *Relay) forget(log string) {
	if r == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	w := r.mu.logs[log]
	if w == nil {
		return
	}
	r.empty(w)
	w.tell()
	r.release(w)
}

// window returns the log's, making it if need be.
func (r *Relay) window(log string) *window {
	w := r.mu.logs[log]
	if w == nil {
		w = &window{log: log, streams: map[*relayed]struct{}{}}
		r.mu.logs[log] = w
	}
	return w
}

// above returns the shortest batch of log that ends above head; nil if there is none that is short.
func (r *Relay) above(log string, head Position) (sealed []byte) {
	if r == nil {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	w := r.mu.logs[log]
	if w == nil {
		return nil
	}
	for _, h := range w.held {
		if head.before(Position{w.epoch, h.to}) && len(h.sealed) <= maxProof && (sealed == nil || len(h.sealed) < len(sealed)) {
			sealed = h.sealed
		}
	}
	return sealed
}

// evidence returns the newest batch of log that has a change and is no longer than
// most bytes; nil if there is none.
func (r *Relay) evidence(log string, most int) []byte {
	if r == nil {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	w := r.mu.logs[log]
	if w == nil {
		return nil
	}
	for _, h := range slices.Backward(w.held) {
		if !h.empty && len(h.sealed) <= most {
			return h.sealed
		}
	}
	return nil
}

// release forgets a window that holds nothing and has no listener.
func (r *Relay) release(w *window) {
	if len(w.held) == 0 && len(w.streams) == 0 {
		delete(r.mu.logs, w.log)
	}
}

func (w *window) last() *held {
	if len(w.held) == 0 {
		return nil
	}
	return w.held[len(w.held)-1]
}

func (w *window) tell() {
	for st := range w.streams {
		st.mark(w.log)
	}
}
