package client

import (
	"bytes"
	"errors"
	"io"
	"os"
	"sync"
)

// Value is what is put. It is read as it is sent.
type Value struct {
	open func() io.Reader
	size int64 // below 0: not known
	once *once
}

// Bytes is a value that is in memory.
func Bytes(b []byte) Value {
	return Value{open: func() io.Reader { return bytes.NewReader(b) }, size: int64(len(b))}
}

// File is a value in a file of that size.
func File(name string, size int64) Value {
	return Value{open: func() io.Reader {
		f, err := os.Open(name)
		if err != nil {
			return broken{err}
		}
		return f // whoever sends it closes it
	}, size: size}
}

// Stream is a value that can be read once, of most bytes at most; reading more of it fails with over.
func Stream(r io.Reader, most int64, over error) Value {
	o := &once{from: r, left: most, over: over}
	return Value{open: o.open, size: -1, once: o}
}

func (v Value) sentBy(k *call) {
	if v.size == 0 {
		return // the empty body that k has
	}
	k.body, k.reader, k.size = nil, v.open, v.size
	if v.once != nil {
		k.spent = v.once.failed
	}
}

// broken fails with why there is nothing to read.
type broken struct{ err error }

func (b broken) Read([]byte) (int, error) { return 0, b.err }

// errSpent: something of it was read, so it cannot be sent to another control node.
var errSpent = errors.New("it can be read only once")

// once is what Stream reads from.
type once struct {
	reading sync.Mutex // who sends it may go on reading for a while after it gave up
	from    io.Reader
	left    int64
	over    error
	mu      sync.Mutex // not held while from is read, which may take for ever
	err     error
}

func (o *once) open() io.Reader { return o }

func (o *once) failed() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.err
}

func (o *once) Read(p []byte) (int, error) {
	o.reading.Lock()
	defer o.reading.Unlock()
	if err := o.note(errSpent); !errors.Is(err, errSpent) {
		return 0, err
	}
	n, err := o.from.Read(p)
	if o.left -= int64(n); o.left < 0 {
		err = o.over
	}
	if err != nil && err != io.EOF {
		return 0, o.note(err)
	}
	return n, err
}

// note notes what came of it, and returns what is known: what it failed with first.
func (o *once) note(err error) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.err == nil || errors.Is(o.err, errSpent) {
		o.err = err
	}
	return o.err
}
