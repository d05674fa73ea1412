package support

import (
	"archive/tar"
	"compress/gzip"
	"fmt"
	"io"
	"os"
	"time"
)

// Bundle is a tar.gz under way. What cannot be had is noted in it, not an error:
// a fleet in trouble has less to tell.
type Bundle struct {
	Scrub Scrubber
	zip   *gzip.Writer
	tar   *tar.Writer
	now   time.Time
	lacks string
	err   error // the first of writing
}

// New begins a bundle on w. Close it.
func New(w io.Writer, now time.Time) *Bundle {
	z := gzip.NewWriter(w)
	return &Bundle{zip: z, tar: tar.NewWriter(z), now: now}
}

// Text adds a file of text, scrubbed.
func (b *Bundle) Text(name, text string) { b.put(name, []byte(b.Scrub.Text(text))) }

// JSON adds v as a file, scrubbed. With an error it is noted as lacking.
func (b *Bundle) JSON(name string, v any, err error) {
	if err != nil {
		b.Lacks(name, err)
		return
	}
	text, err := b.Scrub.JSON(v)
	if err != nil {
		b.Lacks(name, err)
		return
	}
	b.put(name, text)
}

// File adds the end of a file of text, the last most bytes of it, scrubbed.
func (b *Bundle) File(name, path string, most int64) {
	f, err := os.Open(path)
	if err != nil {
		b.Lacks(name, err)
		return
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		b.Lacks(name, err)
		return
	}
	text, err := io.ReadAll(io.NewSectionReader(f, max(0, info.Size()-most), most))
	if err != nil {
		b.Lacks(name, err)
		return
	}
	b.Text(name, string(text))
}

// Lacks notes what could not be had.
func (b *Bundle) Lacks(name string, err error) { b.lacks += fmt.Sprintf("%s: %v\n", name, err) }

// Lacking returns what could not be had, a line for each.
func (b *Bundle) Lacking() string { return b.lacks }

func (b *Bundle) put(name string, text []byte) {
	if b.err != nil {
		return
	}
	h := &tar.Header{Name: "selvage-support/" + name, Mode: 0o600, Size: int64(len(text)), ModTime: b.now, Format: tar.FormatPAX}
	if b.err = b.tar.WriteHeader(h); b.err == nil {
		_, b.err = b.tar.Write(text)
	}
}

// Close ends the bundle, and returns the first error of writing it.
func (b *Bundle) Close() error {
	if b.lacks != "" {
		b.Text("lacking.txt", b.lacks)
	}
	for _, end := range []func() error{b.tar.Close, b.zip.Close} {
		if err := end(); b.err == nil {
			b.err = err
		}
	}
	return b.err
}
