// Package target finds the fleet that a command speaks to: its address, the
// root key it is pinned to, the token and the project.
package target

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/BurntSushi/toml"

	"github.com/selvage-edge/selvage/control/identity"
	"github.com/selvage-edge/selvage/runtime/nearest"
)

// Target is one fleet as a developer reaches it.
type Target struct {
	Control   []string `toml:"control"`   // https:// addresses of control nodes
	Root      string   `toml:"root"`      // fingerprint of the fleet's root key
	Token     string   `toml:"token"`     // bearer token
	Project   string   `toml:"project"`   // used where a command names none
	Publisher string   `toml:"publisher"` // file of the publisher's private key
	EdgeCA    string   `toml:"edge_ca"`   // PEM file of the CA of the PoPs' own certificates, for `selvage request`; empty: the system's
	Path      string   `toml:"-"`         // the file it was read from
}

// Where tells how a target is found; it is part of every message that says none was.
const Where = "--target FILE, $SELVAGE_TARGET, .selvage/target.toml here or in a folder above, or ~/.config/selvage/target.toml"

// ErrNone means that no target file was found anywhere.
var ErrNone = errors.New("no fleet to speak to: start one with 'selvage up', or name its target file (" + Where + ")")

// Find loads the target named by flag, or the first of the places in Where.
func Find(flag string) (Target, error) {
	path, err := locate(flag)
	if err != nil {
		return Target{}, err
	}
	return Load(path)
}

func locate(flag string) (string, error) {
	if flag != "" {
		return flag, nil
	}
	if env := os.Getenv("SELVAGE_TARGET"); env != "" {
		return env, nil
	}
	if dir, err := os.Getwd(); err == nil {
		for ; ; dir = filepath.Dir(dir) {
			if p := filepath.Join(dir, ".selvage", "target.toml"); exists(p) {
				return p, nil
			}
			if dir == filepath.Dir(dir) {
				break
			}
		}
	}
	if dir, err := os.UserConfigDir(); err == nil {
		if p := filepath.Join(dir, "selvage", "target.toml"); exists(p) {
			return p, nil
		}
	}
	return "", ErrNone
}

func exists(p string) bool {
	_, err := os.Stat(p)
	return err == nil
}

// Load reads a target file; $SELVAGE_TOKEN stands in for its token. Relative
// paths in it are taken from its folder.
func Load(path string) (Target, error) {
	t := Target{Project: "default", Path: path}
	meta, err := toml.DecodeFile(path, &t)
	if err != nil {
		return t, fmt.Errorf("target %s: %w", path, err)
	}
	if u := meta.Undecoded(); len(u) > 0 {
		known := []string{"control", "root", "token", "project", "publisher", "edge_ca"}
		return t, fmt.Errorf("target %s: unknown key %s; %sknown here: %s", path, u[0], nearest.Hint(u[0].String(), known), strings.Join(known, ", "))
	}
	if env := os.Getenv("SELVAGE_TOKEN"); env != "" {
		t.Token = env
	}
	for _, p := range []*string{&t.Publisher, &t.EdgeCA} {
		if *p != "" && !filepath.IsAbs(*p) {
			*p = filepath.Join(filepath.Dir(path), *p)
		}
	}
	return t, t.validate()
}

func (t *Target) validate() error {
	var missing []string
	if len(t.Control) == 0 {
		missing = append(missing, "control")
	}
	if t.Root == "" {
		missing = append(missing, "root")
	}
	if t.Token == "" {
		missing = append(missing, "token (or $SELVAGE_TOKEN)")
	}
	if len(missing) > 0 {
		return fmt.Errorf("target %s: not set: %s", t.Path, strings.Join(missing, ", "))
	}
	for _, c := range t.Control {
		if !strings.HasPrefix(c, "https://") {
			return fmt.Errorf("target %s: control %q: want https://host:port", t.Path, c)
		}
	}
	return nil
}

// Save writes t to path, readable by its owner only: it holds the token.
func (t Target) Save(path string) error {
	var b strings.Builder
	if err := toml.NewEncoder(&b).Encode(t); err != nil {
		return fmt.Errorf("target: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("target: %w", err)
	}
	// In one step, and with that mode also where another file was.
	if err := identity.WriteFile(path, []byte(b.String())); err != nil {
		return fmt.Errorf("target: %w", err)
	}
	return nil
}
