package telemetry

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"unsafe"
)

func TestLineSize(t *testing.T) {
	if n := int(unsafe.Sizeof(Line{})); n > lineSize || n < lineSize/2 {
		t.Errorf("a Line has %d bytes, lineSize is %d", n, lineSize)
	}
	l := Line{Text: "12345", RefusedCalls: map[string]int{"kv": 1}}
	if got, want := l.Size(), lineSize+5+2+64; got != want {
		t.Errorf("size %d, want %d", got, want)
	}
}

func TestParseLineIsBounded(t *testing.T) {
	calls := map[string]int{}
	for i := range maxRefusedKinds {
		calls[fmt.Sprint(i)] = 1
	}
	text, err := json.Marshal(Line{RefusedCalls: calls})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ParseLine(text); err != nil {
		t.Error(err)
	}
	calls["more"] = 1
	if text, err = json.Marshal(Line{RefusedCalls: calls}); err != nil {
		t.Fatal(err)
	}
	if _, err := ParseLine(text); err == nil {
		t.Error("a line with any number of refused calls is taken")
	}
	if _, err := ParseLine([]byte(`{"msg":"` + strings.Repeat("x", MaxLineBytes) + `"}`)); err == nil {
		t.Error("a line of any length is taken")
	}
}
