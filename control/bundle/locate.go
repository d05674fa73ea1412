package bundle

import (
	"bytes"
	"strconv"
	"strings"
)

// place is where something stands in a file, from 1, columns in bytes.
type place struct{ line, column int }

// locate says where each key of a TOML document stands: "limits.cpu",
// "routes[2]", "kv[1].name". The TOML library knows where values stand too, but
// tells only the last of those with the same name, and stops at the first
// fault; so this reads the file again. The document must have passed the
// library: locate is lenient, and wrong about a place at worst. Keys inside inline tables stand where their table does.
func locate(source []byte) map[string]place {
	s := &scan{src: source, places: map[string]place{}, tables: map[string]int{}}
	for s.skipBlank(); !s.end(); s.skipBlank() {
		if s.src[s.pos] == '[' {
			s.header()
		} else {
			s.keyValue()
		}
	}
	return s.places
}

type scan struct {
	src    []byte
	pos    int
	line   int // lines before lineAt
	lineAt int // where the counting of lines has come to
	prefix string
	tables map[string]int // [[name]] seen so far
	places map[string]place
}

func (s *scan) end() bool { return s.pos >= len(s.src) }

func (s *scan) peek(lit string) bool { return bytes.HasPrefix(s.src[s.pos:], []byte(lit)) }

// mark notes that key stands at byte at, unless it is known: the first place wins.
func (s *scan) mark(key string, at int) {
	s.line += bytes.Count(s.src[s.lineAt:at], []byte{'\n'})
	s.lineAt = at
	if _, ok := s.places[key]; !ok {
		s.places[key] = place{s.line + 1, at - bytes.LastIndexByte(s.src[:at], '\n')}
	}
}

// skipBlank skips white space, line ends and comments.
func (s *scan) skipBlank() {
	for !s.end() {
		switch s.src[s.pos] {
		case ' ', '\t', '\r', '\n':
			s.pos++
		case '#':
			s.skipLine()
		default:
			return
		}
	}
}

func (s *scan) skipLine() {
	if n := bytes.IndexByte(s.src[s.pos:], '\n'); n >= 0 {
		s.pos += n + 1
	} else {
		s.pos = len(s.src)
	}
}

// header reads [name] or [[name]].
func (s *scan) header() {
	at := s.pos
	many := s.peek("[[")
	s.pos++
	if many {
		s.pos++
	}
	name := s.keyPath()
	if many {
		s.tables[name]++
		s.mark(name, at)
	}
	s.prefix = s.within(name)
	s.mark(s.prefix, at)
	s.skipLine()
}

// within puts the present index behind each list of tables in a path.
func (s *scan) within(name string) string {
	if n := s.tables[name]; n > 0 {
		return name + "[" + strconv.Itoa(n) + "]"
	}
	for i := strings.LastIndexByte(name, '.'); i > 0; i = strings.LastIndexByte(name[:i], '.') {
		if n := s.tables[name[:i]]; n > 0 {
			return name[:i] + "[" + strconv.Itoa(n) + "]" + name[i:]
		}
	}
	return name
}

// keyValue reads name = value.
func (s *scan) keyValue() {
	at := s.pos
	key := s.keyPath()
	if s.prefix != "" {
		key = s.prefix + "." + key
	}
	s.mark(key, at)
	if s.end() || s.src[s.pos] != '=' {
		s.skipLine() // cannot be, in a document that passed
		return
	}
	s.pos++
	s.value(key)
}

// keyPath reads a dotted key and the blanks around its parts.
func (s *scan) keyPath() string {
	var parts []string
	for {
		s.skipInline()
		parts = append(parts, quoteKey(s.keyPart()))
		s.skipInline()
		if s.end() || s.src[s.pos] != '.' {
			return strings.Join(parts, ".")
		}
		s.pos++
	}
}

func (s *scan) skipInline() {
	for !s.end() && (s.src[s.pos] == ' ' || s.src[s.pos] == '\t') {
		s.pos++
	}
}

func (s *scan) keyPart() string {
	if s.end() {
		return ""
	}
	from := s.pos
	if q := s.src[s.pos]; q == '"' || q == '\'' {
		s.skipString()
		raw := string(s.src[from:s.pos])
		if text, err := strconv.Unquote(raw); err == nil && q == '"' {
			return text
		}
		return strings.Trim(raw, string(q))
	}
	for !s.end() && bareKey(rune(s.src[s.pos])) {
		s.pos++
	}
	if s.pos == from {
		s.pos++ // cannot be, in a document that passed; never stand still
	}
	return string(s.src[from:s.pos])
}

// value skips a value to the end of its line, and marks the elements of a list.
func (s *scan) value(key string) {
	depth, element, fresh := 0, 0, false
	for !s.end() {
		c := s.src[s.pos]
		if fresh && depth == 1 && !strings.ContainsRune(" \t\r\n#,]", rune(c)) {
			element, fresh = element+1, false
			s.mark(key+"["+strconv.Itoa(element)+"]", s.pos)
		}
		switch c {
		case '"', '\'':
			s.skipString()
			continue
		case '#':
			s.skipLine()
			if depth == 0 {
				return
			}
			continue
		case '\n':
			if depth == 0 {
				return
			}
		case '[', '{':
			depth++
			fresh = depth == 1 && c == '['
		case ']', '}':
			depth--
		case ',':
			fresh = depth == 1
		}
		s.pos++
	}
}

// skipString skips a string of any of the four sorts.
func (s *scan) skipString() {
	q := s.src[s.pos : s.pos+1]
	if three := bytes.Repeat(q, 3); bytes.HasPrefix(s.src[s.pos:], three) {
		q = three
	}
	s.pos += len(q)
	for !s.end() && !bytes.HasPrefix(s.src[s.pos:], q) {
		if s.src[s.pos] == '\\' && q[0] == '"' {
			s.pos++
		}
		s.pos++
	}
	s.pos = min(len(s.src), s.pos+len(q))
	for len(q) == 3 && !s.end() && s.src[s.pos] == q[0] { // up to two quotes may stand before the closing three
		s.pos++
	}
}

func bareKey(r rune) bool {
	return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '_' || r == '-'
}

// quoteKey writes a part of a key as it would stand in a file.
func quoteKey(part string) string {
	if part != "" && !strings.ContainsFunc(part, func(r rune) bool { return !bareKey(r) }) {
		return part
	}
	return strconv.Quote(part)
}
