package store

import (
	"encoding/base64"
	"fmt"
	"strings"

	"github.com/selvage-edge/selvage/runtime/hostcall"
)

// A space is a group of keys with an order of its own: a KV namespace
// ("project/namespace"), a bucket of records, or the catalog (""). Its names are
// checked, so they are safe as subject tokens; keys are any bytes and are not.

// maxNameBytes bounds a name within a space.
const maxNameBytes = 63

// strict accepts one encoding of a key only, so that two subjects are two keys.
var strict = base64.RawURLEncoding.Strict()

// subject returns where key of space lives under prefix.
func subject(prefix, space, key string) (string, error) {
	if space != "" {
		names := strings.Split(space, "/")
		for _, n := range names {
			if err := checkName(n); err != nil {
				return "", err
			}
		}
		prefix += "." + strings.Join(names, ".")
	}
	if key == "" || len(key) > hostcall.MaxKeyBytes {
		return "", fmt.Errorf("store: a key of %d bytes, want 1 to %d: %w", len(key), hostcall.MaxKeyBytes, hostcall.ErrInvalid)
	}
	return prefix + "." + strict.EncodeToString([]byte(key)), nil
}

// parseSubject undoes subject.
func parseSubject(prefix, subj string) (space, key string, err error) {
	rest, ok := strings.CutPrefix(subj, prefix+".")
	if !ok {
		return "", "", fmt.Errorf("store: subject %.80q is not below %q", subj, prefix)
	}
	if i := strings.LastIndexByte(rest, '.'); i >= 0 {
		space, rest = strings.ReplaceAll(rest[:i], ".", "/"), rest[i+1:]
	}
	raw, err := strict.DecodeString(rest)
	if err != nil {
		return "", "", fmt.Errorf("store: subject %.80q: %w", subj, err)
	}
	if again, err := subject(prefix, space, string(raw)); err != nil || again != subj {
		return "", "", fmt.Errorf("store: subject %.80q is not one of ours", subj)
	}
	return space, string(raw), nil
}

// checkName accepts 1 to 63 of a-z, 0-9 and -, not at the ends.
func checkName(s string) error {
	bad := s == "" || len(s) > maxNameBytes || s[0] == '-' || s[len(s)-1] == '-'
	for i := 0; i < len(s) && !bad; i++ {
		c := s[i]
		bad = !(c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-')
	}
	if bad {
		return fmt.Errorf("store: name %.80q: want 1 to %d of a-z, 0-9 and - (not first or last): %w", s, maxNameBytes, hostcall.ErrInvalid)
	}
	return nil
}

// CatalogLog is the catalog's log.
const CatalogLog = "catalog"

// KVLog returns the log of a KV namespace.
func KVLog(ns hostcall.Namespace) string { return "kv/" + space(ns) }

// ParseKVLog returns the namespace whose log it is.
func ParseKVLog(log string) (hostcall.Namespace, error) {
	parts := strings.Split(log, "/")
	if len(parts) != 3 || parts[0] != "kv" {
		return hostcall.Namespace{}, fmt.Errorf("store: log %.80q: want %q or kv/PROJECT/NAMESPACE: %w", log, CatalogLog, hostcall.ErrInvalid)
	}
	ns := hostcall.Namespace{Project: parts[1], Name: parts[2]}
	return ns, checkNamespace(ns)
}

func space(ns hostcall.Namespace) string { return ns.Project + "/" + ns.Name }

func checkNamespace(ns hostcall.Namespace) error {
	if err := checkName(ns.Project); err != nil {
		return err
	}
	return checkName(ns.Name)
}
