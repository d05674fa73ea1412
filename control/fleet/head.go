package fleet

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/hashicorp/memberlist"
)

// Bounds of what fleet carries of heads.
const (
	MaxHeads    = 256 // logs
	MaxLogBytes = 160 // a log's name
)

// Head is the newest epoch and revision of a log, as someone claims it.
type Head struct {
	Log      string // "catalog", "kv/project/namespace"
	Epoch    uint64
	Sequence uint64
}

// After reports whether h is newer than o, which is of the same log.
func (h Head) After(o Head) bool {
	return cmp.Or(cmp.Compare(h.Epoch, o.Epoch), cmp.Compare(h.Sequence, o.Sequence)) > 0
}

func (h Head) validate() error {
	if len(h.Log) == 0 || len(h.Log) > MaxLogBytes || !printable(h.Log) {
		return fmt.Errorf("log name %.80q: want 1 to %d printable bytes", h.Log, MaxLogBytes)
	}
	return nil
}

// headsVersion starts a message of heads: for each, the name with its length
// in a uvarint, then epoch and sequence, little-endian.
const headsVersion = 1

func encodeHeads(hs []Head) []byte {
	b := []byte{headsVersion}
	for _, h := range hs {
		b = binary.AppendUvarint(b, uint64(len(h.Log)))
		b = append(b, h.Log...)
		b = binary.LittleEndian.AppendUint64(b, h.Epoch)
		b = binary.LittleEndian.AppendUint64(b, h.Sequence)
	}
	return b
}

// decodeHeads reads a foreign message; it keeps nothing of b.
func decodeHeads(b []byte) ([]Head, error) {
	if len(b) == 0 || b[0] != headsVersion {
		return nil, errors.New("heads: not of a known version")
	}
	var hs []Head
	for b = b[1:]; len(b) > 0; {
		n, used := binary.Uvarint(b)
		if used <= 0 || n > MaxLogBytes || int(n)+16 > len(b)-used {
			return nil, errors.New("heads: cut short")
		}
		if len(hs) == MaxHeads {
			return nil, fmt.Errorf("heads: more than %d", MaxHeads)
		}
		h := Head{Log: string(b[used : used+int(n)])}
		b = b[used+int(n):]
		h.Epoch, h.Sequence = binary.LittleEndian.Uint64(b), binary.LittleEndian.Uint64(b[8:])
		b = b[16:]
		if err := h.validate(); err != nil {
			return nil, fmt.Errorf("heads: %w", err)
		}
		hs = append(hs, h)
	}
	return hs, nil
}

// heads is the newest head known of each log, and the queue that tells others.
type heads struct {
	refused atomic.Uint64
	queue   *memberlist.TransmitLimitedQueue
	mu      struct {
		sync.Mutex
		byLog map[string]Head
	}
}

func newHeads(alive func() int) *heads {
	h := &heads{queue: &memberlist.TransmitLimitedQueue{NumNodes: alive, RetransmitMult: 4}}
	h.mu.byLog = map[string]Head{}
	return h
}

// raise takes h if it is news, and then passes it on.
func (t *heads) raise(h Head) (news bool, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	old, known := t.mu.byLog[h.Log]
	if known && !h.After(old) {
		return false, nil
	}
	if !known && len(t.mu.byLog) >= MaxHeads {
		return false, fmt.Errorf("head of %s: %d logs are known already, the most gossip carries", h.Log, MaxHeads)
	}
	t.mu.byLog[h.Log] = h
	t.queue.QueueBroadcast(headBroadcast{h})
	return true, nil
}

// learn takes heads out of a foreign message and returns those that were news.
func (t *heads) learn(b []byte) (news []Head) {
	hs, err := decodeHeads(b)
	if err != nil {
		t.refused.Add(1)
		return nil
	}
	for _, h := range hs {
		isNews, err := t.raise(h)
		if err != nil {
			t.refused.Add(1)
		}
		if isNews {
			news = append(news, h)
		}
	}
	return news
}

func (t *heads) snapshot() []Head {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.SortedFunc(maps.Values(t.mu.byLog), func(a, b Head) int { return cmp.Compare(a.Log, b.Log) })
}

// headBroadcast is one head on its way; a newer one of the same log replaces it.
type headBroadcast struct{ head Head }

var _ memberlist.NamedBroadcast = headBroadcast{}

func (b headBroadcast) Name() string { return b.head.Log }
func (b headBroadcast) Invalidates(o memberlist.Broadcast) bool {
	other, ok := o.(headBroadcast)
	return ok && other.head.Log == b.head.Log
}
func (b headBroadcast) Message() []byte { return encodeHeads([]Head{b.head}) }
func (b headBroadcast) Finished()       {}
