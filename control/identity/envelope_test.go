package identity

import (
	"bytes"
	"encoding/hex"
	"errors"
	"reflect"
	"strings"
	"testing"
)

func TestPAE(t *testing.T) {
	// The example of the DSSE specification, section "Signature Definition".
	got := string(pae("http://example.com/HelloWorld", []byte("hello world")))
	if want := "DSSEv1 29 http://example.com/HelloWorld 11 hello world"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func signed(t testing.TB) (*Signer, Envelope) {
	t.Helper()
	key, err := NewSigner()
	if err != nil {
		t.Fatal(err)
	}
	return key, key.Sign("text/plain", []byte("hello"))
}

func TestEnvelopeRoundTrip(t *testing.T) {
	_, e := signed(t)
	got, err := DecodeEnvelope(e.Encode())
	if err != nil || !reflect.DeepEqual(got, e) {
		t.Errorf("binary: %+v, %v", got, err)
	}
	text, _ := e.MarshalText()
	var again Envelope
	if err := again.UnmarshalText(text); err != nil || !reflect.DeepEqual(again, e) {
		t.Errorf("text: %+v, %v", again, err)
	}
	if err := again.UnmarshalText(append(text[:10:10], append([]byte("\n"), text[10:]...)...)); err == nil {
		t.Error("a text with a line end was taken")
	}
}

// TestEveryFlippedBitIsRefused flips each bit of an encoded envelope of every
// purpose: what is left must not verify, whatever it decodes to.
func TestEveryFlippedBitIsRefused(t *testing.T) {
	c, created := newFleet(t, InitOptions{})
	publisher, err := LoadSigner(created.PublisherKey)
	if err != nil {
		t.Fatal(err)
	}
	for purpose, key := range map[Purpose]*Signer{PurposeCatalog: c.Catalog, PurposeChanges: c.Changes, PurposePublisher: publisher} {
		project := ""
		if purpose == PurposePublisher {
			project = "default"
		}
		good := key.Sign("text/plain", []byte("hello")).Encode()
		if !verifies(c, purpose, project, good) {
			t.Fatalf("%s: the untouched envelope is refused", purpose)
		}
		for i := range len(good) * 8 {
			bad := bytes.Clone(good)
			bad[i/8] ^= 1 << (i % 8)
			if verifies(c, purpose, project, bad) {
				t.Errorf("%s: bit %d of byte %d was flipped and nobody noticed", purpose, i%8, i/8)
			}
		}
		for n := range good {
			if verifies(c, purpose, project, good[:n]) {
				t.Errorf("%s: cut to %d bytes and nobody noticed", purpose, n)
			}
		}
		if verifies(c, purpose, project, append(bytes.Clone(good), 0)) {
			t.Errorf("%s: a byte was added and nobody noticed", purpose)
		}
	}
}

func verifies(c *Control, purpose Purpose, project string, b []byte) bool {
	e, err := DecodeEnvelope(b)
	if err != nil {
		return false
	}
	_, _, err = c.Anchor.Verify(purpose, project, "text/plain", e)
	return err == nil
}

func TestDecodePayloadHasOneForm(t *testing.T) {
	type form struct {
		A int    `json:"a"`
		B string `json:"b,omitempty"`
	}
	for in, ok := range map[string]bool{
		`{"a":1}`:                  true,
		`{"a":1,"b":"x"}`:          true,
		`{"A":1}`:                  false,
		`{"a":1,"a":1}`:            false,
		`{"a":1,"b":""}`:           false,
		`{"b":"x","a":1}`:          false,
		`{"a":1} `:                 false,
		`{"a":1}{}`:                false,
		`{"a":1,"c":2}`:            false,
		`{}`:                       false,
		`null`:                     false,
		`{"a":1.0}`:                false,
		`{"a":1,"b":"\u0078"}`:     false,
		"{\"a\":1,\"b\":\"\xff\"}": false,
	} {
		var f form
		if err := DecodePayload([]byte(in), &f); (err == nil) != ok {
			t.Errorf("%s: %v", in, err)
		}
	}
}

func TestFingerprintIsOfTheKey(t *testing.T) {
	key, _ := signed(t)
	if _, err := ParseKeyID(string(key.ID())); err != nil {
		t.Error(err)
	}
	for _, bad := range []string{"", "sha256:", "sha256:" + hex.EncodeToString(make([]byte, 31)), "SHA256:" + hex.EncodeToString(make([]byte, 32)), "sha256:" + "A" + hex.EncodeToString(make([]byte, 32))[1:]} {
		if _, err := ParseKeyID(bad); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}

func FuzzDecodeEnvelope(f *testing.F) {
	_, e := signed(f)
	f.Add(e.Encode())
	f.Add([]byte(envelopeMagic))
	f.Add([]byte(envelopeMagic + "\xff"))
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := DecodeEnvelope(b)
		if err != nil {
			return
		}
		if !bytes.Equal(e.Encode(), b) {
			t.Errorf("two forms of one envelope: %x", b)
		}
		text, err := e.MarshalText()
		if err != nil {
			t.Fatal(err)
		}
		var again Envelope
		if err := again.UnmarshalText(text); err != nil || !reflect.DeepEqual(e, again) {
			t.Errorf("text form: %v", err)
		}
	})
}

func FuzzParseJoinToken(f *testing.F) {
	_, key := signed(f)
	token, _, err := NewJoinToken("acme", key.KeyID, []string{"10.0.0.1:8443"}, "", 0, start)
	if err != nil {
		f.Fatal(err)
	}
	text := token.Encode()
	f.Add(text)
	f.Add(text[:len(text)-1])
	f.Add(text + "=")
	f.Add(strings.ToUpper(text))
	f.Add(" " + text + "\n")
	f.Fuzz(func(t *testing.T, s string) {
		token, err := ParseJoinToken(s)
		if err != nil {
			return
		}
		again, err := ParseJoinToken(token.Encode())
		if err != nil || !reflect.DeepEqual(token, again) {
			t.Errorf("%q: %v", s, err)
		}
	})
}

func FuzzTrust(f *testing.F) {
	root, err := NewRootKey()
	if err != nil {
		f.Fatal(err)
	}
	key, e := signed(f)
	d, err := root.Delegate(Delegation{Fleet: "a", Purpose: PurposeCatalog, Subject: "b", PublicKey: key.PublicKey()}, start)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(d.Payload, d.Encode(), root.PublicKey())
	f.Add([]byte("{}"), e.Encode(), key.PublicKey())
	f.Fuzz(func(t *testing.T, payload, encoded, public []byte) {
		// What the root signed may still be nonsense: a decoder must refuse it, not fall over it.
		b := Bundle{Root: root.PublicKey(), Delegations: []Envelope{root.Sign(delegationType, payload)}}
		if _, err := NewTrust(root.ID(), b, at(start)); err != nil && !errors.Is(err, ErrUntrusted) {
			t.Errorf("%v: of no known sort", err)
		}
		if e, err := DecodeEnvelope(encoded); err == nil {
			b.Delegations = append(b.Delegations, e)
		}
		b.Certificates = [][]byte{payload}
		b.Revocations = &Envelope{PayloadType: revocationType, Payload: payload, KeyID: root.ID(), Sig: encoded}
		b.Root = public
		_, _ = NewTrust(root.ID(), b, at(start))
	})
}
