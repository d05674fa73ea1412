package main

import (
	"bytes"
	"fmt"
	"io"
	"os"

	"github.com/selvage-edge/selvage/control/bundle"
	"github.com/selvage-edge/selvage/edge/telemetry"
	"github.com/selvage-edge/selvage/runtime/function"
	"github.com/selvage-edge/selvage/runtime/symbol"
)

// symbols name the lines of one function's source.
type symbols struct {
	table   *symbol.Table
	version function.Digest // "": of a bare module, which may be any version's
	told    bool            // of a fault of another version
}

// openSymbols reads them from a bundle or a module; "" is none.
func openSymbols(path string) (*symbols, error) {
	if path == "" {
		return nil, nil
	}
	b, err := readAtMost(path, bundle.Limits{}.WithDefaults().PackedBytes)
	if err != nil {
		return nil, usagef("--symbols: %w; 'selvage build' makes the bundle of a function", err)
	}
	s := &symbols{}
	if !bytes.HasPrefix(b, []byte("\x00asm")) {
		opened, err := bundle.Open(b, bundle.Limits{})
		if err != nil {
			return nil, usagef("--symbols: %s: neither a module nor a bundle: %w", path, err)
		}
		b, s.version = opened.Module, opened.Digest
	}
	s.table = symbol.New(b)
	if err := s.table.Err(); err != nil {
		return nil, usagef("--symbols: %s: %w", path, err)
	}
	return s, nil
}

func readAtMost(path string, most int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, most+1))
	if err == nil && int64(len(b)) > most {
		err = fmt.Errorf("%s: more than %d bytes", path, most)
	}
	return b, err
}

// annotate adds file and line to a fault of the version that s is of. s may be nil.
func (s *symbols) annotate(l *telemetry.Line) {
	if s == nil {
		return
	}
	if s.version == "" || l.Version == s.version.Short() {
		l.Text = s.table.Annotate(l.Text)
		return
	}
	if !s.told && s.table.Annotate(l.Text) != l.Text {
		s.told = true
		l.Text += fmt.Sprintf("\n(--symbols: this is of version %s, the symbols are of %s; neither is this named, nor what follows of it)", l.Version, s.version.Short())
	}
}
