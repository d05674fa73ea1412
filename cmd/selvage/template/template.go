// Package template holds the function that `selvage init` begins with.
package template

import (
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

//go:embed files
var files embed.FS

// SDK is the module path of the Go SDK that the template builds on.
const SDK = "github.com/selvage-edge/selvage/sdk/go"

// ErrExists means that the folder is there already and not empty.
var ErrExists = errors.New("the folder is not empty")

// ErrName means that the name is not one a function can have.
var ErrName = errors.New("not a function's name")

var nameForm = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

// Write makes dir with a function called name in it, ready to build. sdkDir, if
// not empty, is a local copy of the SDK that go.mod is pointed at.
func Write(dir, name, sdkDir string) ([]string, error) {
	if !nameForm.MatchString(name) {
		return nil, fmt.Errorf("%q: %w: want 1 to 63 lower-case letters, digits and inner dashes", name, ErrName)
	}
	if old, err := os.ReadDir(dir); err == nil && len(old) > 0 {
		return nil, fmt.Errorf("%s: %w; name another folder", dir, ErrExists)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	replace := ""
	if sdkDir != "" {
		replace = "\nreplace " + SDK + " => " + sdkDir + "\n"
	}
	fill := strings.NewReplacer("{{name}}", name, "{{sdk}}", SDK, "{{replace}}", replace)
	var written []string
	err := fs.WalkDir(files, "files", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := files.ReadFile(path)
		if err != nil {
			return err
		}
		out := filepath.Join(dir, target(path))
		written = append(written, out)
		return os.WriteFile(out, []byte(fill.Replace(string(text))), 0o644)
	})
	return written, err
}

// target names the file that path becomes; a dot file cannot be embedded under its own name.
func target(path string) string {
	name := strings.TrimSuffix(filepath.Base(path), ".tmpl")
	if name == "gitignore" {
		return ".gitignore"
	}
	return name
}
