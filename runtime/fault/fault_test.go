package fault

import (
	"errors"
	"fmt"
	"testing"
)

func TestCatalogueIsComplete(t *testing.T) {
	seen := map[string]Kind{}
	for _, k := range Kinds() {
		if k.String() == "" || kinds[k].text == "" {
			t.Errorf("kind %d has no name or no text", k)
		}
		if other, ok := seen[k.String()]; ok {
			t.Errorf("kinds %d and %d are both named %q", other, k, k)
		}
		seen[k.String()] = k
		if s := k.Status(); s < 400 || s > 599 {
			t.Errorf("%s: status %d is not an error", k, s)
		}
	}
	if want := int(Internal); len(Kinds()) != want {
		t.Errorf("Kinds lists %d of %d", len(Kinds()), want)
	}
}

func TestErrorNamesLimitAndKnob(t *testing.T) {
	e := &Error{Kind: CPU, Limit: "50ms", Knob: "limits.cpu", Detail: "in handle", Cause: errors.New("interrupt")}
	want := "the function used its processor time (limit 50ms; raise it with limits.cpu): in handle: interrupt"
	if e.Error() != want {
		t.Errorf("got  %s\nwant %s", e, want)
	}
}

func TestOf(t *testing.T) {
	inner := New(Stack, "", nil)
	if got := Of(fmt.Errorf("invoke: %w", inner)); got != inner {
		t.Errorf("Of does not find the failure inside: %v", got)
	}
	if got := Of(errors.New("disk")); got.Kind != Internal {
		t.Errorf("a foreign error is %v, want internal", got.Kind)
	}
	if Of(nil) != nil {
		t.Error("Of(nil) is not nil")
	}
}
