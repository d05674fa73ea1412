package config

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

// Every file in configs/ is one an operator may start from.
func TestShippedConfigsLoad(t *testing.T) {
	files, err := filepath.Glob("../../../configs/*.toml")
	if err != nil || len(files) == 0 {
		t.Fatalf("configs: %v, %d files", err, len(files))
	}
	for _, f := range files {
		switch filepath.Base(f) {
		case "control.toml":
			_, err = LoadControl(f)
		case "dns.toml":
			_, err = LoadNameServer(f)
		default:
			_, err = LoadEdge(f)
		}
		if err != nil {
			t.Errorf("%s: %v", f, err)
		}
	}
}

func TestEdgeReportsEveryFault(t *testing.T) {
	path := filepath.Join(t.TempDir(), "edge.toml")
	write(t, path, `
[node]
name = "Lon 1"
pop = "lon"
position = "51.5"
weight = 2
addresses = ["192.0.2.1", "192.0.2.2"]
[geo]
default_country = "Britain"
default_position = "91, 0"
[dns]
listen = "53"
answers = 9
zones = [{ name = "example.com" }]
[listen]
public = "443"
[fetch]
allow = ["10.0.0.0"]
[log]
level = "loud"
`)
	_, err := LoadEdge(path)
	if err == nil {
		t.Fatal("loaded")
	}
	for _, want := range []string{"node.name", "node.state", "listen.public", "listen.advertise", "tls.certificates", "fetch.allow[0]", "log.level",
		"node.position", "node.weight", "node.addresses[1]", "geo.default_country", "geo.default_position", "dns.listen", "dns.answers", "dns.zones"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in:\n%v", want, err)
		}
	}
}

func TestUnknownAndMalformed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "edge.toml")
	write(t, path, "[node]\nnmae = \"a\"\n")
	if _, err := LoadEdge(path); err == nil || !strings.Contains(err.Error(), "node.nmae") {
		t.Errorf("unknown key: %v", err)
	}
	for text, want := range map[string]string{
		"[node]\nname = \"a\"\n\n[lisen]\npublic = \"1.2.3.4:443\"\n": "line 4: unknown keys: lisen (did you mean `listen`?); ",
		"[node]\nnmae = \"a\"\n":                              "line 2: unknown keys: node.nmae (did you mean `name`?); ",
		"[node]\nspeed = 1\nnode.nme = 2\n":                   "line 2: unknown keys: node.speed, node.node.nme; ",
		"[node]\nname = \"a\"\n\n[dns] # of ours\nname = 1\n": "line 5: unknown keys: dns.name",
		"[[dns.zones]]\nnane = \"a\"\n":                       "line 2: unknown keys: dns.zones.nane (did you mean `name`?); ",
		"listen = 3\n":                                        "line 1: listen: want a table of keys, not an integer",
		"[node]\nname = 3\n":                                  "line 2: node.name: want a string, not an integer",
		"[node]\nname = [\"a\"]\n":                            "line 2: node.name: want a string, not a list",
		"[node]\n\nname = true\n":                             "line 3: node.name: want a string, not true or false",
		"[dns]\nzones = 1.5\n":                                "line 2: dns.zones: want a list, not a float",
	} {
		write(t, path, text)
		_, err := LoadEdge(path)
		var f *Fault
		if !errors.As(err, &f) || f.Path != path || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
	write(t, path, "[node\n")
	if _, err := LoadEdge(path); err == nil || !strings.Contains(err.Error(), ": line ") {
		t.Errorf("malformed: %v", err)
	}
}

// The default in a key's tag (shown in the reference) is the one in force.
func TestDocumentedDefaultsAreTrue(t *testing.T) {
	for _, v := range []any{DefaultEdge(), DefaultControl(), DefaultNameServer()} {
		checkDefaults(t, "", reflect.ValueOf(v))
	}
}

func checkDefaults(t *testing.T, prefix string, v reflect.Value) {
	for i := range v.NumField() {
		f, val := v.Type().Field(i), v.Field(i)
		key := prefix + f.Tag.Get("toml")
		if f.Tag.Get("doc") == "" && val.Kind() != reflect.Struct {
			t.Errorf("%s: no doc", key)
		}
		if val.Kind() == reflect.Struct {
			checkDefaults(t, key+".", val)
			continue
		}
		def, ok := f.Tag.Lookup("default")
		if !ok {
			if !val.IsZero() {
				t.Errorf("%s: default %v is not documented", key, val)
			}
			continue
		}
		if got := toText(val); got != def {
			t.Errorf("%s: documented default %q, in force %q", key, def, got)
		}
	}
}

func toText(v reflect.Value) string {
	if v.Kind() == reflect.Slice && v.Len() == 0 {
		return "[]"
	}
	return fmt.Sprint(v.Interface())
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
