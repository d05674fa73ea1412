// Package symbol names the source line that an instruction of a module came from.
//
// Two kinds of tables say so: DWARF in custom sections (C, C++, Rust, TinyGo), and the
// table that a Go program carries in its data for its own stack traces, which
// stays there however it was linked.
package symbol

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"sync"
)

// Bounds of what is read; a module beyond them has no lines.
const (
	maxModule = 64 << 20 // bytes; runtime/scan takes no larger one
	maxString = 4 << 10  // bytes of one name
)

// Position is a place in a function's source.
type Position struct {
	Function string // as its language writes it; "" where the tables do not say
	File     string // as the toolchain wrote it: an absolute path, or one below a module
	Line     int
}

// Table finds the lines of one module. It keeps the module's bytes, and reads them
// when it is first asked. It is safe for use by many.
type Table struct {
	read func() (*lines, error)
}

// New returns the table of a module, which may not change any more.
func New(module []byte) *Table {
	return &Table{sync.OnceValues(func() (*lines, error) { return read(module) })}
}

// Err says why the module has no lines; nil if it has some.
func (t *Table) Err() error {
	_, err := t.read()
	return err
}

// Find names the line of an instruction: function by its index, imports counted;
// offset in bytes from the begin of the function's body (its locals), which is the
// same before and after runtime/image takes a module apart.
func (t *Table) Find(function, offset uint32) (Position, bool) {
	l, err := t.read()
	if err != nil {
		return Position{}, false
	}
	body, ok := l.module.body(function)
	if !ok || uint64(offset) >= uint64(len(body.code)) {
		return Position{}, false
	}
	for _, s := range l.sources {
		if p, ok := s.find(body, offset); ok {
			return p, true
		}
	}
	return Position{}, false
}

// frame is a line of a backtrace as runtime/engine writes it.
var frame = regexp.MustCompile(`(?m)^(\d+): (.*?) ?\(function (\d+)\+0x([0-9a-f]+)\)$`)

// Annotate adds file and line to each frame of the backtraces in text, and the function's
// name where it lacks.
func (t *Table) Annotate(text string) string {
	return frame.ReplaceAllStringFunc(text, func(line string) string {
		m := frame.FindStringSubmatch(line)
		function, err1 := strconv.ParseUint(m[3], 10, 32)
		offset, err2 := strconv.ParseUint(m[4], 16, 32)
		p, ok := t.Find(uint32(function), uint32(offset))
		if err1 != nil || err2 != nil || !ok {
			return line
		}
		name := m[2]
		if name == "" {
			name = p.Function
		}
		return fmt.Sprintf("%s: %s (function %s+0x%s) %s:%d", m[1], name, m[3], m[4], p.File, p.Line)
	})
}

// lines are the tables of one module.
type lines struct {
	module  *module
	sources []source
}

// source is one kind of table.
type source interface {
	find(b body, offset uint32) (Position, bool)
}

var errNone = errors.New("the module says nothing of its source: build it with debug information (-g), or, for Go, with the standard toolchain")

func read(b []byte) (*lines, error) {
	m, err := parse(b)
	if err != nil {
		return nil, err
	}
	l := &lines{module: m}
	if d := openDWARF(m); d != nil {
		l.sources = append(l.sources, d)
	}
	if g := openGo(b); g != nil {
		l.sources = append(l.sources, g)
	}
	if len(l.sources) == 0 {
		return nil, errNone
	}
	return l, nil
}
