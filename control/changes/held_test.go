package changes

import (
	"bytes"
	"errors"
	"path/filepath"
	"testing"

	"github.com/selvage-edge/selvage/control/identity"
)

var heldSample = Held{Log: "kv/default/links", Position: Position{Epoch: 7, Seq: 300}, Keys: 1 << 40, Bytes: 1 << 50, Sum: [32]byte{1, 31: 9}}

func TestHeldComesBack(t *testing.T) {
	id, created, err := identity.Init(filepath.Join(t.TempDir(), "identity"), identity.InitOptions{})
	if err != nil {
		t.Fatal(err)
	}
	sealed := SealHeld(id.Changes, &heldSample)
	got, err := OpenHeld(id.Anchor, sealed)
	if err != nil || *got != heldSample {
		t.Errorf("%+v, %v", got, err)
	}
	for i := range sealed {
		other := bytes.Clone(sealed)
		other[i] ^= 1
		if _, err := OpenHeld(id.Anchor, other); err == nil {
			t.Fatalf("byte %d may be another", i)
		}
	}
	// A signed batch is no such word, nor the word of a key for something else.
	batch, err := SealWith(id.Changes)(heldSample.Encode())
	if err != nil {
		t.Fatal(err)
	}
	publisher, err := identity.LoadSigner(created.PublisherKey)
	if err != nil {
		t.Fatal(err)
	}
	for name, sealed := range map[string][]byte{"a batch": batch, "another key's": SealHeld(publisher, &heldSample)} {
		if _, err := OpenHeld(id.Anchor, sealed); !errors.Is(err, identity.ErrUntrusted) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := OpenHeld(id.Anchor, make([]byte, maxHeldBytes+1)); !errors.Is(err, ErrBatch) {
		t.Errorf("too long: %v", err)
	}
}

func FuzzDecodeHeld(f *testing.F) {
	f.Add(heldSample.Encode())
	f.Add((&Held{Log: "l"}).Encode())
	f.Add([]byte{2})
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := DecodeHeld(b)
		if err != nil {
			if !errors.Is(err, ErrBatch) {
				t.Error(err)
			}
			return
		}
		if !bytes.Equal(h.Encode(), b) {
			t.Errorf("%x has another encoding, %x", b, h.Encode())
		}
	})
}
