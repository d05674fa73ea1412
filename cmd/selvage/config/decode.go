package config

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strconv"
	"strings"

	"github.com/BurntSushi/toml"

	"github.com/selvage-edge/selvage/runtime/nearest"
)

// Fault is what is wrong with a file as a whole: it cannot be read as what it is.
type Fault struct {
	Path    string
	Line    int // from 1; 0: not known
	Message string
}

// Error returns "config PATH: line N: MESSAGE".
func (f *Fault) Error() string {
	if f.Line > 0 {
		return fmt.Sprintf("config %s: line %d: %s", f.Path, f.Line, f.Message)
	}
	return fmt.Sprintf("config %s: %s", f.Path, f.Message)
}

// decode reads path over the defaults already in into; an unknown key is an error.
func decode(path string, into any) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("config: %w", err)
	}
	meta, err := toml.Decode(string(text), into)
	if err != nil {
		var syntax toml.ParseError
		if errors.As(err, &syntax) {
			return &Fault{path, syntax.Position.Line, syntax.Message}
		}
		return wrongType(path, err)
	}
	if unknown := meta.Undecoded(); len(unknown) > 0 {
		return unknownKeys(path, string(text), unknown, reflect.TypeOf(into).Elem())
	}
	return nil
}

// What the decoder says of a value whose type is not its key's: line, key and types, which have Go's names.
var (
	wrongValue = regexp.MustCompile(`^toml: line (\d+) \(last key "(.*)"\): incompatible types: TOML value has type (\S+); destination has type (\S+)$`)
	wrongTable = regexp.MustCompile(`^toml: line (\d+) \(last key "(.*)"\): type mismatch for \S+: expected (table) but found (\S+)$`)
)

// wrongType tells of such a value in the file's own terms.
func wrongType(path string, err error) error {
	found, want := 3, 4
	m := wrongValue.FindStringSubmatch(err.Error())
	if m == nil {
		m, found, want = wrongTable.FindStringSubmatch(err.Error()), 4, 3
	}
	if m == nil {
		return fmt.Errorf("config %s: %w", path, err)
	}
	line, _ := strconv.Atoi(m[1]) // digits
	return &Fault{path, line, fmt.Sprintf("%s: want %s, not %s", m[2], typeName(m[want]), typeName(m[found]))}
}

func typeName(t string) string {
	switch {
	case strings.HasPrefix(t, "int"):
		return "an integer"
	case strings.HasPrefix(t, "map"), t == "table":
		return "a table of keys"
	case strings.HasPrefix(t, "[]"), t == "slice":
		return "a list"
	case strings.HasPrefix(t, "bool"):
		return "true or false"
	}
	return "a " + strings.TrimSuffix(t, "64")
}

// unknownKeys tells of keys that t does not have, with the nearest that it has; of what
// stands in an unknown table the table alone.
func unknownKeys(path, text string, unknown []toml.Key, t reflect.Type) *Fault {
	var said []string
	tables := map[string]bool{}
	for _, k := range unknown {
		tables[k.String()] = true
		if len(k) > 1 && tables[k[:len(k)-1].String()] {
			continue
		}
		one := k.String()
		if w := nearest.Word(k[len(k)-1], keysBelow(t, k[:len(k)-1])); w != "" {
			one += " (did you mean `" + w + "`?)"
		}
		said = append(said, one)
	}
	f := &Fault{Path: path, Line: lineOf(text, unknown[0])}
	f.Message = fmt.Sprintf("unknown keys: %s; 'selvage reference' lists the known ones", strings.Join(said, ", "))
	return f
}

// keysBelow are the keys that t has in the table at path.
func keysBelow(t reflect.Type, path toml.Key) (keys []string) {
	if t.Kind() == reflect.Slice {
		t = t.Elem()
	}
	if t.Kind() != reflect.Struct {
		return nil
	}
	for i := range t.NumField() {
		key := t.Field(i).Tag.Get("toml")
		if len(path) == 0 {
			keys = append(keys, key)
		} else if key == path[0] {
			return keysBelow(t.Field(i).Type, path[1:])
		}
	}
	return keys
}

// lineOf is the line, from 1, of the key or the table header; 0 if it is written in another way
// than plainly in its table.
func lineOf(text string, key toml.Key) int {
	table := "" // that the line is in
	for i, line := range strings.Split(text, "\n") {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "[") {
			table, _, _ = strings.Cut(strings.TrimLeft(line, "["), "]")
			if table = strings.TrimSpace(table); table == key.String() {
				return i + 1
			}
			continue
		}
		name, _, _ := strings.Cut(line, "=")
		if name = strings.TrimSpace(name); table != "" {
			name = table + "." + name
		}
		if name == key.String() {
			return i + 1
		}
	}
	return 0
}

// below returns path, taken from dir if it is relative; empty stays empty.
func below(dir, path string) string {
	if path == "" || filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(dir, path)
}

// faults gathers what is wrong, one line each.
type faults []error

func (f *faults) add(format string, args ...any) { *f = append(*f, fmt.Errorf("  "+format, args...)) }

func (f *faults) set(key, value string) {
	if value == "" {
		f.add("%s: not set", key)
	}
}

func (f *faults) name(key, value string) {
	if !nameForm.MatchString(value) {
		f.add("%s: %q: want 1 to 63 lower-case letters, digits and inner dashes", key, value)
	}
}

func (f *faults) address(key, value string) {
	if _, err := netip.ParseAddrPort(value); err != nil {
		f.add("%s: %q: want IP:port, such as 127.0.0.1:8443 or [::]:443", key, value)
	}
}

// advertise asks for an address when others could not tell it from the listeners.
func (f *faults) advertise(value string, listeners ...string) {
	if value != "" {
		if a, err := netip.ParseAddr(value); err != nil || a.IsUnspecified() {
			f.add("listen.advertise: %q: want an IP address others reach this node at", value)
		}
		return
	}
	for _, l := range listeners {
		if a, err := netip.ParseAddrPort(l); err == nil && a.Addr().IsUnspecified() {
			f.add("listen.advertise: not set, and %s says nothing about where others reach this node", l)
			return
		}
	}
}

func (f *faults) positive(key string, value int) {
	if value <= 0 {
		f.add("%s: %d: want a number above zero", key, value)
	}
}

func (f *faults) level(value string) {
	var l slog.Level
	if err := l.UnmarshalText([]byte(value)); err != nil {
		f.add("log.level: %q: want debug, info, warn or error", value)
	}
}

// Reach returns the host:port others use for a listener: its own address, or
// advertise with the listener's port when it listens on all addresses.
func Reach(listener, advertise string) string {
	a := netip.MustParseAddrPort(listener)
	if advertise != "" {
		return netip.AddrPortFrom(netip.MustParseAddr(advertise), a.Port()).String()
	}
	return a.String()
}

// Level returns the slog level named text; info if it names none.
func Level(text string) slog.Level {
	var l slog.Level
	_ = l.UnmarshalText([]byte(text)) // checked by Validate
	return l
}
