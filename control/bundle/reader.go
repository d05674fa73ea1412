package bundle

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/BurntSushi/toml"

	"github.com/selvage-edge/selvage/runtime/nearest"
)

// reader gathers the faults of one manifest.
type reader struct {
	places map[string]place
	faults []Fault
}

// open parses the file; its syntax must be right before anything else is looked at.
func (r *reader) open(source []byte) (*table, bool) {
	if len(source) > MaxManifestBytes {
		r.fault("", "the file has %d bytes; at most %d are read", len(source), MaxManifestBytes)
		return nil, false
	}
	var m map[string]any
	if err := toml.Unmarshal(source, &m); err != nil {
		r.syntax(source, err)
		return nil, false
	}
	r.places = locate(source)
	return &table{r: r, values: m}, true
}

func (r *reader) syntax(source []byte, err error) {
	f := Fault{Line: 1, Column: 1, Message: err.Error()}
	var p toml.ParseError
	if errors.As(err, &p) {
		f = Fault{Line: p.Position.Line, Column: p.Position.Col, Message: "not TOML: " + p.Message}
	}
	// The library's place may be past the end of a line, or of the file.
	lines := strings.Split(string(source), "\n")
	f.Line = min(max(1, f.Line), len(lines))
	f.Column = min(max(1, f.Column), len(lines[f.Line-1])+1)
	r.faults = append(r.faults, f)
}

// fault notes that what stands at key is wrong.
func (r *reader) fault(key, format string, args ...any) {
	at := r.place(key)
	r.faults = append(r.faults, Fault{Line: at.line, Column: at.column, Key: key, Message: fmt.Sprintf(format, args...)})
}

// place finds where key stands, or the nearest thing around it.
func (r *reader) place(key string) place {
	for key != "" {
		if p, ok := r.places[key]; ok {
			return p
		}
		key = key[:max(0, strings.LastIndexAny(key, ".["))]
	}
	return place{1, 1}
}

// table is one table of the file. Each getter marks its key as known; done
// reports the rest.
type table struct {
	r      *reader
	path   string // "" for the file, else "limits" or "kv[1]"
	values map[string]any
	known  []string
}

func (t *table) key(name string) string {
	if t.path == "" {
		return quoteKey(name)
	}
	return t.path + "." + quoteKey(name)
}

func (t *table) fault(name, format string, args ...any) { t.r.fault(t.key(name), format, args...) }

func (t *table) get(name string) (any, bool) {
	t.known = append(t.known, name)
	v, ok := t.values[name]
	return v, ok
}

// text returns the string at name; "" if it is not there or is no string (a fault).
func (t *table) text(name string) string {
	v, ok := t.get(name)
	if !ok {
		return ""
	}
	s, ok := v.(string)
	if !ok {
		t.fault(name, "%s where text in quotes is wanted", describe(v))
	}
	return s
}

// required is text that must be there.
func (t *table) required(name, example string) string {
	if _, ok := t.values[name]; !ok {
		t.known = append(t.known, name)
		t.fault(name, "missing; write %s = %q", name, example)
		return ""
	}
	return t.text(name)
}

// texts returns a list of strings with the key of each.
func (t *table) texts(name string) (list, keys []string) {
	v, ok := t.get(name)
	if !ok {
		return nil, nil
	}
	items, ok := v.([]any)
	if !ok {
		t.fault(name, "%s where a list is wanted: [\"...\", \"...\"]", describe(v))
		return nil, nil
	}
	for i, item := range items {
		key := fmt.Sprintf("%s[%d]", t.key(name), i+1)
		if s, ok := item.(string); ok {
			list, keys = append(list, s), append(keys, key)
		} else {
			t.r.fault(key, "%s where text in quotes is wanted", describe(item))
		}
	}
	return list, keys
}

// sub returns the table at name; nil if there is none.
func (t *table) sub(name string) *table {
	v, ok := t.get(name)
	if !ok {
		return nil
	}
	m, ok := v.(map[string]any)
	if !ok {
		t.fault(name, "%s where a table is wanted: [%s]", describe(v), name)
		return nil
	}
	return &table{r: t.r, path: t.key(name), values: m}
}

// subs returns the tables of a list.
func (t *table) subs(name string) []*table {
	v, ok := t.get(name)
	if !ok {
		return nil
	}
	maps, ok := asTables(v)
	if !ok {
		t.fault(name, "%s where a list of tables is wanted: [[%s]]", describe(v), name)
		return nil
	}
	list := make([]*table, len(maps))
	for i, m := range maps {
		list[i] = &table{r: t.r, path: fmt.Sprintf("%s[%d]", t.key(name), i+1), values: m}
	}
	return list
}

func asTables(v any) ([]map[string]any, bool) {
	if maps, ok := v.([]map[string]any); ok {
		return maps, true
	}
	items, ok := v.([]any)
	maps := make([]map[string]any, len(items))
	for i, item := range items {
		m, isTable := item.(map[string]any)
		maps[i], ok = m, ok && isTable
	}
	return maps, ok
}

// done reports every key that no getter asked for.
func (t *table) done() {
	for name := range t.values {
		if !slices.Contains(t.known, name) {
			t.fault(name, "unknown key; %sknown here: %s", nearest.Hint(name, t.known), strings.Join(t.known, ", "))
		}
	}
}

// describe names a value's TOML type, for errors.
func describe(v any) string {
	switch v.(type) {
	case string:
		return "text"
	case int64:
		return "a number"
	case float64:
		return "a number with a point"
	case bool:
		return "true or false"
	case []any, []map[string]any:
		return "a list"
	case map[string]any:
		return "a table"
	}
	return "a date or time"
}
