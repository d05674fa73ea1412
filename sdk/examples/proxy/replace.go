package main

import (
	"bytes"
	"io"
)

// replacer is a reader in which each old is a new. What it holds back is what
// may be the beginning of an old.
type replacer struct {
	src      io.Reader
	old, new []byte
	in       []byte // read, not yet looked through to its end
	out      []byte // ready
	err      error  // of src, once it came
}

func replace(src io.Reader, old, new string) io.Reader {
	if old == "" {
		return src
	}
	return &replacer{src: src, old: []byte(old), new: []byte(new)}
}

func (r *replacer) Read(p []byte) (int, error) {
	for len(r.out) == 0 {
		if r.err != nil {
			return 0, r.err
		}
		r.fill(len(p))
	}
	n := copy(p, r.out)
	r.out = r.out[n:]
	return n, nil
}

// fill reads once and moves on what is certain.
func (r *replacer) fill(room int) {
	have := len(r.in)
	r.in = append(r.in, make([]byte, max(room, 512))...)
	n, err := r.src.Read(r.in[have:])
	r.in, r.err = r.in[:have+n], err
	rest := r.in
	for r.out = r.out[:0]; ; {
		before, after, found := bytes.Cut(rest, r.old)
		if !found {
			break
		}
		r.out = append(append(r.out, before...), r.new...)
		rest = after
	}
	keep := 0
	if err == nil {
		keep = beginning(rest, r.old)
	}
	r.out = append(r.out, rest[:len(rest)-keep]...)
	r.in = append(r.in[:0], rest[len(rest)-keep:]...)
}

// beginning is how many bytes at the end of b could be the beginning of old.
func beginning(b, old []byte) int {
	for n := min(len(old)-1, len(b)); n > 0; n-- {
		if bytes.HasSuffix(b, old[:n]) {
			return n
		}
	}
	return 0
}
