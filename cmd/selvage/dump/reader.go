package dump

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
)

// Mark is a place in an input: after how many lines, and what they were.
type Mark struct {
	Line  int64  `json:"line"`
	Bytes int64  `json:"bytes"`
	Sum   []byte `json:"sum"` // SHA-256 of the sum before and the line, from none on
}

// Reader takes an input apart into lines. It holds one line at a time.
type Reader struct {
	in *bufio.Reader
	at Mark
	b  []byte
}

// NewReader reads from in, which stays the caller's.
func NewReader(in io.Reader) *Reader { return &Reader{in: bufio.NewReaderSize(in, 256<<10)} }

// At returns where the reader is: after the line that it returned last.
func (r *Reader) At() Mark { return r.at }

// Next returns the next line that is not empty, without its end; io.EOF when there is none. The bytes are
// valid until the call after. Cut says that the line has no end: the input may have been cut off in it.
func (r *Reader) Next() (line []byte, cut bool, err error) {
	for {
		if line, cut, err = r.raw(); err != nil {
			return nil, false, err
		}
		h := sha256.New()
		h.Write(r.at.Sum)
		h.Write(line)
		r.at.Sum = h.Sum(nil)
		if len(bytes.TrimSpace(line)) > 0 {
			return line, cut, nil
		}
	}
}

func (r *Reader) raw() (line []byte, cut bool, err error) {
	r.b = r.b[:0]
	for {
		part, err := r.in.ReadSlice('\n')
		r.b = append(r.b, part...)
		r.at.Bytes += int64(len(part))
		switch {
		case len(r.b) > MaxLineBytes+1:
			return nil, false, fmt.Errorf("line %d: over %d bytes, the largest there can be", r.at.Line+1, MaxLineBytes)
		case errors.Is(err, bufio.ErrBufferFull):
			continue
		case errors.Is(err, io.EOF) && len(r.b) > 0:
			r.at.Line++
			return r.b, true, nil
		case err != nil:
			return nil, false, err
		}
		r.at.Line++
		return r.b[:len(r.b)-1], false, nil
	}
}

// Skip reads up to a mark of before, and checks that the lines are those of then.
func (r *Reader) Skip(to Mark) error {
	for r.at.Line < to.Line {
		_, _, err := r.Next()
		if errors.Is(err, io.EOF) {
			return fmt.Errorf("the input has %d lines, and %d were done before: it is another input", r.at.Line, to.Line)
		}
		if err != nil {
			return err
		}
	}
	if r.at.Line != to.Line || len(to.Sum) > 0 && !bytes.Equal(r.at.Sum, to.Sum) {
		return fmt.Errorf("the first %d lines are not those that were done before: it is another input", to.Line)
	}
	return nil
}
