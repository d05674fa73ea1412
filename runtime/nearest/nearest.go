// Package nearest finds the known word that a mistyped one was meant to be.
package nearest

import "strings"

// maxBytes is the longest word that is looked at: longer ones are nobody's slip.
const maxBytes = 64

// Word returns the one of known that got is most likely meant to be: at most a third of
// its letters, at least one, are other, missing, too many or exchanged with the next. "" if none
// is that near; of equally near ones the first.
func Word(got string, known []string) string {
	best, word := len(got)/3+1, ""
	if len(got) < 2 || len(got) > maxBytes {
		return ""
	}
	for _, k := range known {
		if len(k) > maxBytes {
			continue
		}
		if d := distance(strings.ToLower(got), k); d < best || word == "" && d == best && d < len(k) {
			best, word = d, k
		}
	}
	return word
}

// Hint is "did you mean ...? ", with the space, or "" if nothing is near.
func Hint(got string, known []string) string {
	if w := Word(got, known); w != "" {
		return "did you mean `" + w + "`? "
	}
	return ""
}

// distance counts the slips between two words (optimal string alignment).
func distance(a, b string) int {
	var rows [3][maxBytes + 1]int
	for j := range len(b) + 1 {
		rows[0][j] = j
	}
	for i := 1; i <= len(a); i++ {
		now, last, before := &rows[i%3], &rows[(i+2)%3], &rows[(i+1)%3]
		now[0] = i
		for j := 1; j <= len(b); j++ {
			other := 1
			if a[i-1] == b[j-1] {
				other = 0
			}
			now[j] = min(last[j]+1, now[j-1]+1, last[j-1]+other)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				now[j] = min(now[j], before[j-2]+1)
			}
		}
	}
	return rows[len(a)%3][len(b)]
}
