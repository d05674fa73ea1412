package client

import (
	"errors"
	"io"
	"strings"
	"testing"
)

// A stream is read once, and not beyond its limit; what it failed with is told.
func TestStream(t *testing.T) {
	over := errors.New("over")
	for text, want := range map[string]error{"": nil, "12345678": nil, "123456789": over} {
		var k call
		Stream(strings.NewReader(text), 8, over).sentBy(&k)
		if k.size >= 0 || k.spent() != nil {
			t.Errorf("%q: size %d, failed before it was read: %v", text, k.size, k.spent())
		}
		b, err := io.ReadAll(k.reader())
		if err != want || want == nil && string(b) != text {
			t.Errorf("%q: %q, %v", text, b, err)
		}
		if told := k.spent(); want == nil && !errors.Is(told, errSpent) || want != nil && told != want {
			t.Errorf("%q: afterwards %v", text, told)
		}
	}
	var k call
	Stream(io.MultiReader(strings.NewReader("a"), broken{io.ErrClosedPipe}), 8, over).sentBy(&k)
	if _, err := io.ReadAll(k.reader()); err != io.ErrClosedPipe || k.spent() != io.ErrClosedPipe {
		t.Errorf("a stream that breaks: %v, %v", err, k.spent())
	}
}

// slow gives nothing until it is to end; waits is closed once it is read.
type slow struct{ waits, end chan struct{} }

func (s slow) Read(p []byte) (int, error) {
	close(s.waits)
	<-s.end
	return 0, io.EOF
}

// That a stream cannot begin anew is known also while more of it is waited for: who gives up does not wait for that.
func TestStreamThatWaits(t *testing.T) {
	var k call
	from := slow{make(chan struct{}), make(chan struct{})}
	Stream(from, 8, io.ErrShortBuffer).sentBy(&k)
	done := make(chan error, 1)
	go func() {
		_, err := io.ReadAll(k.reader())
		done <- err
	}()
	<-from.waits
	if err := k.spent(); !errors.Is(err, errSpent) {
		t.Error(err)
	}
	close(from.end)
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestBytes(t *testing.T) {
	for _, text := range []string{"", "value"} {
		k := put("/", nil, nil, 0)
		Bytes([]byte(text)).sentBy(&k)
		for range 2 { // for one control node after the other
			if k.reader == nil {
				if text != "" || k.body == nil {
					t.Errorf("%q: no body", text)
				}
				continue
			}
			if b, err := io.ReadAll(k.reader()); err != nil || string(b) != text || k.size != int64(len(text)) {
				t.Errorf("%q: %q, %v, size %d", text, b, err, k.size)
			}
		}
	}
}
