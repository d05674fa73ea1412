package dump

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"
	"unicode/utf8"
)

var known = map[string]bool{"key": true, "key_base64": true, "value": true, "value_base64": true, "metadata": true, "metadata_base64": true, "expires": true}

// fields are a line's, each a JSON string as it was written.
type fields map[string]json.RawMessage

// fieldsOf takes a line apart: one object, of known fields, each there once.
func fieldsOf(line []byte) (fields, error) {
	if !utf8.Valid(line) {
		return nil, errors.New("not UTF-8: put such bytes into key_base64, value_base64 or metadata_base64")
	}
	d := json.NewDecoder(bytes.NewReader(line))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return nil, errors.New("want a JSON object")
	}
	f := fields{}
	for d.More() {
		t, err := d.Token()
		if err != nil {
			return nil, fmt.Errorf("not JSON: %w", err)
		}
		name, _ := t.(string) // within an object it is one
		if !known[name] {
			return nil, fmt.Errorf("field %.40q is not known: want key, value, metadata, the same with _base64, and expires", name)
		}
		if _, twice := f[name]; twice {
			return nil, fmt.Errorf("field %s is there twice", name)
		}
		var v json.RawMessage
		if err := d.Decode(&v); err != nil {
			return nil, fmt.Errorf("%s: not JSON: %w", name, err)
		}
		f[name] = v
	}
	if _, err := d.Token(); err != nil { // the closing brace
		return nil, fmt.Errorf("not JSON: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("more than one JSON value on the line")
	}
	return f, nil
}

// bytes returns a field in whichever form is there, nil if none is.
func (f fields) bytes(name string, most int) ([]byte, error) {
	plain, coded := f[name], f[name+"_base64"]
	if plain != nil && coded != nil {
		return nil, fmt.Errorf("%s and %s_base64: want one of them", name, name)
	}
	b, err := []byte(nil), error(nil)
	switch {
	case plain != nil:
		b, err = textOf(plain)
	case coded != nil:
		name += "_base64"
		if b, err = textOf(coded); err == nil {
			b, err = base64.StdEncoding.Strict().AppendDecode([]byte{}, b)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if len(b) > most {
		return nil, fmt.Errorf("%s: %d bytes, at most %d", name, len(b), most)
	}
	return b, nil
}

func (f fields) time(name string) (t time.Time, err error) {
	if f[name] == nil {
		return t, nil
	}
	s, err := textOf(f[name])
	if err == nil {
		t, err = time.Parse(time.RFC3339Nano, string(s))
	}
	if err != nil || t.Year() < 1970 || t.Year() > 9999 {
		return time.Time{}, fmt.Errorf("%s: want RFC 3339, such as 2030-01-31T12:00:00Z", name)
	}
	return t.UTC().Truncate(time.Millisecond), nil
}

// textOf decodes a JSON string, and refuses the halves of surrogate pairs that
// encoding/json would make another character of.
func textOf(v json.RawMessage) ([]byte, error) {
	var s string
	if len(v) == 0 || v[0] != '"' || json.Unmarshal(v, &s) != nil {
		return nil, errors.New("want a string")
	}
	if loneSurrogate(v) {
		return nil, errors.New("half of a surrogate pair is no text: use the base64 form")
	}
	return []byte(s), nil
}

func loneSurrogate(v []byte) bool {
	for i := 0; i < len(v); i++ {
		if v[i] != '\\' {
			continue
		}
		switch r := unit(v[i:]); {
		case r >= 0xdc00 && r <= 0xdfff:
			return true
		case r >= 0xd800 && r <= 0xdbff:
			if low := unit(v[i+6:]); low < 0xdc00 || low > 0xdfff {
				return true
			}
			i += 11
		default:
			i++ // what is escaped is no backslash of its own
		}
	}
	return false
}

// unit is the UTF-16 unit that v begins with as \uXXXX; 0 if it does not.
func unit(v []byte) uint64 {
	if len(v) < 6 || v[0] != '\\' || v[1] != 'u' {
		return 0
	}
	n, _ := strconv.ParseUint(string(v[2:6]), 16, 16) // it was JSON: they are hex digits
	return n
}
