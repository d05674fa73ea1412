package identity

import (
	"fmt"
	"strings"
)

const nameLetters = "abcdefghijklmnopqrstuvwxyz0123456789-"

// CheckName reports what is wrong with s as the name of a thing (fleet, node,
// PoP, region, project, function, namespace): 1 to 63 of a-z, 0-9 and -,
// starting and ending with a letter or digit. what says which in the error.
func CheckName(what, s string) error {
	switch {
	case s == "":
		return fmt.Errorf("%s: empty; give it a name of a-z, 0-9 and -", what)
	case len(s) > 63:
		return fmt.Errorf("%s %.70q: longer than 63 characters", what, s)
	case strings.ContainsFunc(s, outsideName):
		return fmt.Errorf("%s %q: use only a-z, 0-9 and -", what, s)
	case s[0] == '-' || s[len(s)-1] == '-':
		return fmt.Errorf("%s %q: start and end with a letter or digit", what, s)
	}
	return nil
}

func outsideName(r rune) bool { return !strings.ContainsRune(nameLetters, r) }
