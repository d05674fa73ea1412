// Package support packs what is needed to understand a fleet's trouble from afar,
// without the fleet's secrets.
package support

import (
	"encoding/json"
	"regexp"
	"strings"
)

// gone stands where a secret was.
const gone = "[redacted]"

// forms are what secrets look like, wherever they stand.
var forms = []*regexp.Regexp{
	regexp.MustCompile(`slv_[a-z2-7]+_[a-z2-7]+`),    // API tokens
	regexp.MustCompile(`slvjoin_[A-Za-z0-9_\-+/=]+`), // join tokens
	regexp.MustCompile(`(?s)-----BEGIN [A-Z ]*PRIVATE KEY( BLOCK)?-----.*?(-----END [A-Z ]*PRIVATE KEY( BLOCK)?-----|\z)`),
	regexp.MustCompile(`AGE-SECRET-KEY-[A-Z0-9]+`),
	regexp.MustCompile(`eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*`), // JWT
}

// named are values of which the name says that they are secret: in TOML, JSON,
// headers and environments. The name stays.
var named = regexp.MustCompile(`(?i)("?[a-z0-9_.-]*(?:token|secret|password|passwd|passphrase|credential|api[_-]?key|private[_-]?key|authorization|cookie)[a-z0-9_.-]*"?\s*[:=]\s*)("(?:[^"\\]|\\.)*"|'[^']*'|[^\n]+)`)

// userinfo is the name and password of a URL.
var userinfo = regexp.MustCompile(`(://)[^/\s"'@]*@`)

// Scrubber takes secrets out of text: what looks like one, what is named like one,
// and those it knows.
type Scrubber struct{ known []string }

// Know adds a secret that is known; short ones, which stand everywhere, are not taken.
func (s *Scrubber) Know(secret string) {
	if secret = strings.TrimSpace(secret); len(secret) >= 6 {
		s.known = append(s.known, secret)
	}
}

// Text returns t without secrets.
func (s *Scrubber) Text(t string) string {
	for _, k := range s.known {
		t = strings.ReplaceAll(t, k, gone)
	}
	for _, f := range forms {
		t = f.ReplaceAllString(t, gone)
	}
	t = userinfo.ReplaceAllString(t, "${1}"+gone+"@")
	return named.ReplaceAllString(t, `${1}"`+gone+`"`)
}

// JSON returns v as JSON without secrets: of variables, which functions are given,
// only the names stay.
func (s *Scrubber) JSON(v any) ([]byte, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	var tree any
	if err := json.Unmarshal(b, &tree); err != nil {
		return nil, err
	}
	return json.MarshalIndent(s.tree(tree), "", "  ")
}

func (s *Scrubber) tree(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for name, value := range v {
			switch {
			case name == "variables":
				v[name] = hidden(value)
			default:
				v[name] = s.tree(value)
			}
		}
	case []any:
		for i := range v {
			v[i] = s.tree(v[i])
		}
	case string:
		return s.Text(v)
	}
	return v
}

// hidden keeps the names of a map's values.
func hidden(v any) any {
	m, ok := v.(map[string]any)
	if !ok {
		return gone
	}
	for name := range m {
		m[name] = gone
	}
	return m
}
