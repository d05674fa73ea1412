package config

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/BurntSushi/toml"
)

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
			return fmt.Errorf("config %s: line %d: %s", path, syntax.Position.Line, syntax.Message)
		}
		return fmt.Errorf("config %s: %w", path, err)
	}
	var unknown []string
	for _, k := range meta.Undecoded() {
		unknown = append(unknown, k.String())
	}
	if len(unknown) > 0 {
		return fmt.Errorf("config %s: unknown keys: %s; 'selvage reference' lists the known ones", path, strings.Join(unknown, ", "))
	}
	return nil
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
