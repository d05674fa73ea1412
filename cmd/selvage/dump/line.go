// Package dump is the text form of a KV namespace, one key a line (NDJSON), as kv
// export writes it and kv import reads it.
//
// A line is a JSON object (RFC 8259) of these fields and no others:
//
//	key       or key_base64        1 to 512 bytes
//	value     or value_base64      up to 25 MiB
//	metadata  or metadata_base64   up to 1 KiB; neither: none
//	expires                        RFC 3339, on the store's clock; absent: never
//
// The first form is text, the second any bytes in base64 (RFC 4648, with padding). One of both
// forms is there, never both. Empty lines count and mean nothing.
package dump

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"time"
	"unicode/utf8"

	"github.com/selvage-edge/selvage/runtime/hostcall"
)

// MaxLineBytes bounds a line without its end: the largest value in base64, and the rest.
const MaxLineBytes = hostcall.MaxValueBytes/3*4 + 64<<10

// Line is one key. The bytes are the caller's own.
type Line struct {
	Key      string
	Value    []byte
	Metadata []byte    // nil: none
	Expires  time.Time // zero: never; whole milliseconds
}

// wire is a Line as it is written.
type wire struct {
	Key            *string `json:"key,omitempty"`
	KeyBase64      *[]byte `json:"key_base64,omitempty"`
	Value          *string `json:"value,omitempty"`
	ValueBase64    *[]byte `json:"value_base64,omitempty"`
	Metadata       *string `json:"metadata,omitempty"`
	MetadataBase64 *[]byte `json:"metadata_base64,omitempty"`
	Expires        string  `json:"expires,omitempty"`
}

// Append adds l with its line's end to b. Text is written where it is UTF-8 and shorter than base64.
func (l *Line) Append(b []byte) ([]byte, error) {
	var w wire
	w.Key, w.KeyBase64 = forms([]byte(l.Key))
	w.Value, w.ValueBase64 = forms(l.Value)
	if len(l.Metadata) > 0 {
		w.Metadata, w.MetadataBase64 = forms(l.Metadata)
	}
	if !l.Expires.IsZero() {
		w.Expires = l.Expires.UTC().Format("2006-01-02T15:04:05.000Z")
	}
	out := bytes.NewBuffer(b)
	enc := json.NewEncoder(out)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(w); err != nil {
		return b, fmt.Errorf("write the line of key %.80q: %w", l.Key, err)
	}
	return out.Bytes(), nil
}

func forms(b []byte) (*string, *[]byte) {
	if s := string(b); utf8.Valid(b) && escaped(s) <= base64.StdEncoding.EncodedLen(len(b))+16 {
		return &s, nil
	}
	return nil, &b
}

// escaped is at least the length of s in JSON.
func escaped(s string) (n int) {
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			n += 2
		case r < ' ' || r == '\u2028' || r == '\u2029':
			n += 6
		default:
			n += utf8.RuneLen(r)
		}
	}
	return n
}

// Parse reads a line. What it refuses it names by its field.
func Parse(line []byte) (Line, error) {
	var l Line
	if len(line) > MaxLineBytes {
		return l, fmt.Errorf("over %d bytes, the largest there can be", MaxLineBytes)
	}
	f, err := fieldsOf(line)
	if err != nil {
		return l, err
	}
	key, err := f.bytes("key", hostcall.MaxKeyBytes)
	if err != nil {
		return l, err
	}
	if len(key) == 0 {
		return l, fmt.Errorf("key: want 1 to %d bytes, as key or key_base64", hostcall.MaxKeyBytes)
	}
	l.Key = string(key)
	if l.Value, err = f.bytes("value", hostcall.MaxValueBytes); err != nil {
		return l, err
	}
	if l.Value == nil {
		return l, errors.New("value: want value or value_base64, \"\" for an empty one")
	}
	if l.Metadata, err = f.bytes("metadata", hostcall.MaxMetadataBytes); err != nil {
		return l, err
	}
	if len(l.Metadata) == 0 {
		l.Metadata = nil
	}
	if l.Expires, err = f.time("expires"); err != nil {
		return l, err
	}
	return l, nil
}
