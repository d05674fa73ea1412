package replica

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/selvage-edge/selvage/runtime/hostcall"
	"github.com/selvage-edge/selvage/runtime/tally"
)

// A page is records of a copy, in the order of their keys, as nodes send them to each other: of each a
// uvarint length and the key, a uvarint length and the value as it is on disk. There is at least one.

// PageBytes is about what a page has, and MaxPageBytes what it has at most.
const (
	PageBytes    = 256 << 10
	MaxPageBytes = PageBytes + tally.Inline + 4<<10
)

// ErrPage is that bytes are not a page that may follow.
var ErrPage = errors.New("replica: not a page of a copy")

func appendRecord(page []byte, key string, value []byte) []byte {
	page = append(binary.AppendUvarint(page, uint64(len(key))), key...)
	return append(binary.AppendUvarint(page, uint64(len(value))), value...)
}

// decodePage calls do for each record of a page that follows the key after; what it is given aliases page.
// Whoever sent it is not believed: do is called for what comes before something wrong.
func decodePage(page []byte, after string, do func(key string, v *Value) error) error {
	if len(page) == 0 || len(page) > MaxPageBytes {
		return fmt.Errorf("%w: %d bytes", ErrPage, len(page))
	}
	r := reader{b: page}
	for len(r.b) > 0 {
		key := string(r.take(r.uvarint()))
		raw := r.take(r.uvarint())
		switch {
		case r.bad:
			return fmt.Errorf("%w: cut short after %q", ErrPage, after)
		case key == "" || len(key) > hostcall.MaxKeyBytes:
			return fmt.Errorf("%w: a key of %d bytes", ErrPage, len(key))
		case key <= after:
			return fmt.Errorf("%w: %q after %q", ErrPage, key, after)
		}
		v, err := decodeValue(raw)
		if err != nil {
			return fmt.Errorf("%w: %q: %w", ErrPage, key, err)
		}
		if len(v.Value) > tally.Inline {
			return fmt.Errorf("%w: %q has %d bytes", ErrPage, key, len(v.Value))
		}
		if err := do(key, &v); err != nil {
			return err
		}
		after = key
	}
	return nil
}
