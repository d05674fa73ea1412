package function

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Labels say what a node is, as "key=value": its pop, region and node (name),
// which its certificate proves, and those that its operator gave it.
type Labels []string

// LabelsOf returns the labels that a certificate proves, and more.
func LabelsOf(node, pop, region string, more []string) Labels {
	l := append(Labels{"node=" + node, "pop=" + pop}, more...)
	if region != "" {
		l = append(l, "region="+region)
	}
	return l
}

// Placement says on which nodes a function runs. The zero value allows all.
type Placement struct {
	Include []string `json:"include,omitempty"` // a node has one of these labels; none: any node will do
	Exclude []string `json:"exclude,omitempty"` // and none of these
	// Residency pins it: other nodes neither hold nor run it, even where none that may lives.
	Residency bool `json:"residency,omitempty"`
}

// MaxPlacement bounds the labels of a placement, Include and Exclude together.
const MaxPlacement = 64

// IsZero reports whether it allows every node.
func (p Placement) IsZero() bool { return len(p.Include) == 0 && len(p.Exclude) == 0 && !p.Residency }

// Allows reports whether the function is to run on a node with these labels.
func (p Placement) Allows(l Labels) bool {
	has := func(label string) bool { return slices.Contains(l, label) }
	return (len(p.Include) == 0 || slices.ContainsFunc(p.Include, has)) && !slices.ContainsFunc(p.Exclude, has)
}

// MayHold reports whether a node with these labels may have the function's code,
// image and data.
func (p Placement) MayHold(l Labels) bool { return !p.Residency || p.Allows(l) }

// String is the placement in words: "region=eu, not pop=fra; residency".
func (p Placement) String() string {
	var parts []string
	if len(p.Include) > 0 {
		parts = append(parts, strings.Join(p.Include, " or "))
	}
	for _, l := range p.Exclude {
		parts = append(parts, "not "+l)
	}
	s := strings.Join(parts, ", ")
	if s == "" {
		s = "anywhere"
	}
	if p.Residency {
		s += "; residency"
	}
	return s
}

// Validate reports every fault.
func (p Placement) Validate() error {
	var errs []error
	if n := len(p.Include) + len(p.Exclude); n > MaxPlacement {
		errs = append(errs, fmt.Errorf("placement: %d labels; at most %d", n, MaxPlacement))
	}
	for _, s := range slices.Concat(p.Include, p.Exclude) {
		label, err := ParseLabel(s)
		switch {
		case err != nil:
			errs = append(errs, fmt.Errorf("placement: %w", err))
		case label != s:
			errs = append(errs, fmt.Errorf("placement: label %q: write it %q", s, label))
		case p.Residency && !Proven(s):
			errs = append(errs, fmt.Errorf("placement: label %q: residency rests on what certificates prove: use pop, region or node", s))
		}
	}
	if p.Residency && len(p.Include)+len(p.Exclude) == 0 {
		errs = append(errs, errors.New("placement: residency without include or exclude pins the function nowhere"))
	}
	return errors.Join(errs...)
}

// Proven reports whether a node's certificate says that label.
func Proven(label string) bool {
	key, _, _ := strings.Cut(label, "=")
	return key == "pop" || key == "region" || key == "node"
}

// ParseLabel reads "key=value", spaces around either left out: each of 1 to 63
// lower-case letters, digits, dashes and dots, the first a letter or digit.
func ParseLabel(s string) (string, error) {
	key, value, ok := strings.Cut(s, "=")
	key, value = strings.TrimSpace(key), strings.TrimSpace(value)
	if !ok || !labelPart(key) || !labelPart(value) {
		return "", fmt.Errorf("label %.140q: want key=value, each of 1 to 63 lower-case letters, digits, dashes and dots, such as region=eu", s)
	}
	return key + "=" + value, nil
}

func labelPart(s string) bool {
	if s == "" || len(s) > 63 {
		return false
	}
	for i := range len(s) {
		alnum := s[i] >= 'a' && s[i] <= 'z' || s[i] >= '0' && s[i] <= '9'
		if !alnum && (i == 0 || s[i] != '-' && s[i] != '.') {
			return false
		}
	}
	return true
}
