// Package plain makes text of others such that a log or a terminal may see it.
//
// What another node, control, a certificate or a helper says is an attacker's if that one
// is: it may move a terminal's cursor, speak to it (ECMA-48 control sequences), turn the
// direction of what stands beside it, or be without end.
package plain

import (
	"fmt"
	"log/slog"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Text is text with all replaced that is neither printable (unicode.IsPrint) nor a line's
// end or a tab, and with at most so many bytes of it; what is cut is counted. Text that is plain and
// short comes back as it is.
func Text(text string, most int) string {
	more := 0
	if len(text) > most {
		end := most
		for end > 0 && end > most-utf8.UTFMax && !utf8.RuneStart(text[end]) {
			end--
		}
		text, more = text[:end], len(text)-end
	}
	text = strings.Map(printable, text)
	if more > 0 {
		text += fmt.Sprintf("… (%d bytes more)", more)
	}
	return text
}

// Line is Text on one line.
func Line(text string, most int) string {
	return strings.Map(func(r rune) rune {
		if r == '\n' || r == '\t' {
			return ' '
		}
		return r
	}, Text(text, most))
}

func printable(r rune) rune {
	switch {
	case r == '\n', r == '\t', unicode.IsPrint(r):
		return r
	case r == '\r':
		return ' '
	}
	return utf8.RuneError
}

// attrBytes is the most of one string in a log: a fault's backtrace fits.
const attrBytes = 8 << 10

// Attr is a slog.HandlerOptions.ReplaceAttr that has messages, strings and errors be Text.
func Attr(_ []string, a slog.Attr) slog.Attr {
	switch a.Value.Kind() {
	case slog.KindString:
		a.Value = slog.StringValue(Text(a.Value.String(), attrBytes))
	case slog.KindAny:
		switch v := a.Value.Any().(type) {
		case error:
			a.Value = slog.StringValue(Text(v.Error(), attrBytes))
		case fmt.Stringer:
			a.Value = slog.StringValue(Text(v.String(), attrBytes))
		}
	}
	return a
}
