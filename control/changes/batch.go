// Package changes carries a log's changes from control to those who follow it,
// as signed batches that leave nothing out, over one stream for many logs.
//
// # Logs and positions
//
// A log is a view of one ordered store: "catalog", or "kv/<project>/<namespace>".
// Sequences are the store's, so numbers between two changes of one log may be
// missing; only the last change of a key is kept. A [Batch] therefore says from
// where to where it is complete: it holds every change of its log in (From, To]
// that still matters. A follower at position p applies a batch only when its
// epoch is p's and From <= p.Seq; it is at To afterwards. What lies at or before
// p.Seq is skipped, so a batch that comes twice does no harm, and a gap is never
// stepped over. A batch without changes is the signed statement "nothing more
// up to To at time At": the log's watermark.
//
// Of a long log a batch is a page, and others follow. What a page leaves out, because it was
// replaced, comes in a later one: so a page says how far the log had come, its Head, and who
// follows has everything only once it is there. A page says nothing of the time.
//
// A request says what its follower reads. Who is from before there were pages is sent none: where it has missed
// more of a namespace than one batch holds, it begins again, and where it may not leave out what was before, it is
// refused until it is upgraded. A relay sends it to control.
//
// A store restored from a backup has a new epoch. It, and a position so old that
// deletions after it were forgotten, make the follower start again: its sink is
// told to Reset, and what follows replaces everything.
//
// # Neighbours
//
// Batches are signed, so anyone may pass them on: a node keeps the newest of those
// it applied in a [Relay], for the others of its PoP. A [Follower] follows each log
// from control or from the neighbour that its [Neighbourhood] names, and goes back to control
// from one that fails, lies, is behind or brings nothing newly signed. Only who follows a
// log from control serves it, so a change passes two streams at most and no two nodes wait for each other.
//
// # Wire
//
// POST [Path] with a JSON [Request]; the answer is a stream of frames (frame.go).
package changes

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/selvage-edge/selvage/runtime/tally"
)

// PayloadType marks a signed batch; see identity.Envelope.
const PayloadType = "application/vnd.selvage.changes.v1"

// Path is where a control node serves change streams on its peer listener.
const Path = "/peer/v1/changes"

// Bounds of one batch. A decoder refuses what is over them.
const (
	MaxBatchBytes   = 4 << 20
	MaxBatchChanges = 4096
	MaxInline       = tally.Inline // values up to this size travel in the change
	maxLogBytes     = 256
	maxKeyBytes     = 1 << 10
	maxMetadata     = 1 << 10
)

// Op says what a change did to its key.
type Op uint8

// The operations.
const (
	Put    Op = iota + 1 // the key has a new value
	Delete               // the key was deleted
	Expire               // the key's time was up
)

// Change is one change of one key.
type Change struct {
	Seq      uint64    // the revision it made
	Key      string    // any bytes
	Op       Op        //
	Expires  time.Time // Put: when the value stops to count, on the store's clock; zero for never
	Size     uint32    // Put: the value's length
	Sum      [32]byte  // Put: the value's SHA-256
	Metadata []byte    // Put: what was put beside the value
	Value    []byte    // Put: the value, nil when Size is over MaxInline: fetch it by key and check Sum
}

// Inline reports whether the value came with the change.
func (c *Change) Inline() bool { return c.Op == Put && c.Size <= MaxInline }

// Batch is every change of Log in (From, To], in order of Seq, but those that were replaced
// until To, or, of a page with more behind it, until Head.
type Batch struct {
	Log     string
	Epoch   uint64
	From    uint64    // exclusive
	To      uint64    // inclusive; at least From
	Head    uint64    // how far the log had come, if there was more after To; else 0
	At      time.Time // it was everything then, by control's clock; zero with a Head
	Changes []Change

	cut bool // some of its changes were applied before, and are not here
}

// Ends reports whether the batch is control's word that there was nothing in the log after From. It may be of
// a time before a page that the log is followed by: see Head.
func (b *Batch) Ends() bool { return len(b.Changes) == 0 && b.Head == 0 && !b.cut }

// Position is how far a log was followed; the zero Position is "nothing yet".
type Position struct {
	Epoch uint64 `json:"epoch"`
	Seq   uint64 `json:"seq"`
}

// ErrBatch is in every error of DecodeBatch.
var ErrBatch = errors.New("changes: not a batch")

// Versions of the encoding. A batch is of the lowest that can say what it holds, so
// that nodes of before read on what has no metadata.
const (
	batchPlain    = 1
	batchMetadata = 2 // some change has metadata
	batchPage     = 3 // there is more behind it
)

func (b *Batch) version() byte {
	if b.Head > 0 {
		return batchPage
	}
	for i := range b.Changes {
		if len(b.Changes[i].Metadata) > 0 {
			return batchMetadata
		}
	}
	return batchPlain
}

// Encode returns the batch's bytes, the ones that are signed:
//
//	u8 version, string log, uvarint epoch, from, to-from, in version 3 uvarint head-to, i64 at (Unix ms), uvarint count,
//	and for each change: uvarint seq-previous, u8 op, string key;
//	for Put also: uvarint expiry (Unix ms, 0 never), uvarint size, 32 bytes sum, from version 2 on string metadata,
//	the value when size <= MaxInline
//
// where a string is its uvarint length and its bytes, and previous starts at from.
func (b *Batch) Encode() ([]byte, error) {
	if err := b.check(); err != nil {
		return nil, err
	}
	version := b.version()
	out := []byte{version}
	out = appendString(out, b.Log)
	out = binary.AppendUvarint(out, b.Epoch)
	out = binary.AppendUvarint(out, b.From)
	out = binary.AppendUvarint(out, b.To-b.From)
	if version >= batchPage {
		out = binary.AppendUvarint(out, b.Head-b.To)
	}
	out = binary.LittleEndian.AppendUint64(out, uint64(b.At.UnixMilli()))
	out = binary.AppendUvarint(out, uint64(len(b.Changes)))
	prev := b.From
	for i := range b.Changes {
		out = b.Changes[i].append(out, prev, version)
		prev = b.Changes[i].Seq
	}
	if len(out) > MaxBatchBytes {
		return nil, fmt.Errorf("changes: encode batch of %s: %d bytes, over %d", b.Log, len(out), MaxBatchBytes)
	}
	return out, nil
}

func (c *Change) append(out []byte, prev uint64, version byte) []byte {
	out = binary.AppendUvarint(out, c.Seq-prev)
	out = append(out, byte(c.Op))
	out = appendString(out, c.Key)
	if c.Op != Put {
		return out
	}
	var expires uint64
	if !c.Expires.IsZero() {
		expires = uint64(c.Expires.UnixMilli())
	}
	out = binary.AppendUvarint(out, expires)
	out = binary.AppendUvarint(out, uint64(c.Size))
	out = append(out, c.Sum[:]...)
	if version >= batchMetadata {
		out = appendString(out, string(c.Metadata))
	}
	if c.Inline() {
		out = append(out, c.Value...)
	}
	return out
}

// check refuses what Decode would refuse, so that a batch that was sent can be read.
func (b *Batch) check() error {
	switch {
	case b.Log == "" || len(b.Log) > maxLogBytes:
		return fmt.Errorf("changes: batch of log %.80q: want a name of 1 to %d bytes", b.Log, maxLogBytes)
	case b.To < b.From:
		return fmt.Errorf("changes: batch of %s goes from %d back to %d", b.Log, b.From, b.To)
	case b.Head > 0 && (b.Head <= b.To || !b.At.IsZero()):
		return fmt.Errorf("changes: batch of %s to %d at %v, with more up to %d", b.Log, b.To, b.At, b.Head)
	case len(b.Changes) > MaxBatchChanges:
		return fmt.Errorf("changes: batch of %s has %d changes, over %d", b.Log, len(b.Changes), MaxBatchChanges)
	}
	prev := b.From
	for i := range b.Changes {
		c := &b.Changes[i]
		if c.Seq <= prev || c.Seq > b.To {
			return fmt.Errorf("changes: batch of %s (%d to %d): change %d after %d", b.Log, b.From, b.To, c.Seq, prev)
		}
		prev = c.Seq
		if err := c.check(); err != nil {
			return fmt.Errorf("changes: batch of %s: change %d: %w", b.Log, c.Seq, err)
		}
	}
	return nil
}

func (c *Change) check() error {
	switch {
	case c.Key == "" || len(c.Key) > maxKeyBytes:
		return fmt.Errorf("a key of %d bytes", len(c.Key))
	case c.Op < Put || c.Op > Expire:
		return fmt.Errorf("op %d is unknown", c.Op)
	case len(c.Metadata) > maxMetadata || c.Op != Put && len(c.Metadata) > 0:
		return fmt.Errorf("metadata of %d bytes", len(c.Metadata))
	case c.Inline() && len(c.Value) != int(c.Size):
		return fmt.Errorf("a value of %d bytes said to have %d", len(c.Value), c.Size)
	case !c.Inline() && len(c.Value) != 0:
		return errors.New("a value that must not be inline")
	case !c.Expires.IsZero() && c.Expires.UnixMilli() <= 0:
		return fmt.Errorf("expires at %v", c.Expires)
	}
	return nil
}

// DecodeBatch reads what Encode wrote; the values alias b. It accepts only the
// one encoding of a batch, so equal batches are equal bytes.
func DecodeBatch(b []byte) (*Batch, error) {
	if len(b) > MaxBatchBytes {
		return nil, fmt.Errorf("%w: %d bytes, over %d", ErrBatch, len(b), MaxBatchBytes)
	}
	d := decoder{b: b}
	version := d.byte()
	if d.err == nil && (version < batchPlain || version > batchPage) {
		return nil, fmt.Errorf("%w: version %d; this binary reads versions %d to %d: upgrade it", ErrBatch, version, batchPlain, batchPage)
	}
	out := &Batch{Log: d.string(maxLogBytes), Epoch: d.uvarint(), From: d.uvarint()}
	out.To = d.add(out.From, d.uvarint())
	if version >= batchPage {
		out.Head = d.add(out.To, d.uvarint())
	}
	out.At = time.UnixMilli(int64(d.uint64())).UTC()
	n := d.uvarint()
	if n > MaxBatchChanges {
		d.fail("%d changes, over %d", n, MaxBatchChanges)
	}
	prev := out.From
	for i := uint64(0); i < n && d.err == nil; i++ {
		c := d.change(prev, version)
		prev = c.Seq
		out.Changes = append(out.Changes, c)
	}
	if d.err == nil && len(d.b) != 0 {
		d.fail("%d bytes after its end", len(d.b))
	}
	if d.err == nil && out.version() != version {
		d.fail("version %d for what version %d can say", version, out.version())
	}
	if d.err != nil {
		return nil, d.err
	}
	if err := out.check(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrBatch, err)
	}
	return out, nil
}

func (d *decoder) change(prev uint64, version byte) Change {
	c := Change{Seq: d.add(prev, d.uvarint()), Op: Op(d.byte()), Key: d.string(maxKeyBytes)}
	if c.Op != Put || d.err != nil {
		return c
	}
	if ms := d.uvarint(); ms > math.MaxInt64/2 {
		d.fail("an expiry out of range")
	} else if ms > 0 {
		c.Expires = time.UnixMilli(int64(ms)).UTC()
	}
	size := d.uvarint()
	if size > math.MaxUint32 {
		d.fail("a value of %d bytes", size)
	}
	c.Size = uint32(size)
	copy(c.Sum[:], d.take(len(c.Sum)))
	if version >= batchMetadata {
		if s := d.string(maxMetadata); s != "" {
			c.Metadata = []byte(s)
		}
	}
	if c.Inline() {
		c.Value = d.take(int(c.Size))
	}
	return c
}

func appendString(out []byte, s string) []byte {
	return append(binary.AppendUvarint(out, uint64(len(s))), s...)
}

// decoder takes fields off the front of b until one is not there; then err stays.
type decoder struct {
	b   []byte
	err error
}

func (d *decoder) fail(format string, args ...any) {
	if d.err == nil {
		d.err = fmt.Errorf("%w: "+format, append([]any{ErrBatch}, args...)...)
	}
}

func (d *decoder) take(n int) []byte {
	if d.err != nil {
		return nil
	}
	if n < 0 || n > len(d.b) {
		d.fail("cut short: %d bytes where %d were said to follow", len(d.b), n)
		return nil
	}
	out := d.b[:n:n]
	d.b = d.b[n:]
	return out
}

func (d *decoder) byte() byte {
	if b := d.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (d *decoder) uint64() uint64 {
	if b := d.take(8); b != nil {
		return binary.LittleEndian.Uint64(b)
	}
	return 0
}

// uvarint reads a number in its shortest form only.
func (d *decoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.b)
	if d.err != nil {
		return 0
	}
	if n <= 0 || n != len(binary.AppendUvarint(nil, v)) {
		d.fail("a bad number")
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) string(limit int) string {
	n := d.uvarint()
	if n > uint64(limit) {
		d.fail("a name of %d bytes, over %d", n, limit)
		return ""
	}
	return string(d.take(int(n)))
}

func (d *decoder) add(a, b uint64) uint64 {
	if a > math.MaxUint64-b {
		d.fail("a sequence out of range")
		return a
	}
	return a + b
}
