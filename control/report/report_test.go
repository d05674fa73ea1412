package report

import (
	"strings"
	"testing"
)

func TestValidate(t *testing.T) {
	good := Report{Node: "n1", PoP: "lon", Functions: []Function{{Project: "p", Function: "f", State: Live}}}
	if err := good.Validate(); err != nil {
		t.Error(err)
	}
	long := strings.Repeat("x", 300)
	for name, r := range map[string]Report{
		"nobody":        {PoP: "lon"},
		"nowhere":       {Node: "n1"},
		"a long name":   {Node: long, PoP: "lon"},
		"no function":   {Node: "n1", PoP: "lon", Functions: []Function{{State: Live}}},
		"a long one":    {Node: "n1", PoP: "lon", Functions: []Function{{Project: "p", Function: long, State: Live}}},
		"no state":      {Node: "n1", PoP: "lon", Functions: []Function{{Project: "p", Function: "f"}}},
		"another state": {Node: "n1", PoP: "lon", Functions: []Function{{Project: "p", Function: "f", State: "great"}}},
		"no namespace":  {Node: "n1", PoP: "lon", KV: []Space{{Project: "p"}}},
		"a long other":  {Node: "n1", PoP: "lon", KV: []Space{{Project: "p", Namespace: long}}},
		"too many":      {Node: "n1", PoP: "lon", KV: make([]Space, MaxSpaces+1)},
	} {
		if r.Validate() == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	talker := Report{Node: "n1", PoP: "lon", Functions: []Function{{Project: "p", Function: "f", State: Failed, Why: strings.Repeat("é", 4096)}}}
	if err := talker.Validate(); err != nil || len(talker.Functions[0].Why) > 4096 {
		t.Errorf("%d bytes of why, %v", len(talker.Functions[0].Why), err)
	}
}

func TestFinalStates(t *testing.T) {
	for s, final := range map[State]bool{Fetching: false, Compiling: false, Live: true, Failed: true, Removed: true} {
		if s.Final() != final {
			t.Errorf("%s: final is %v", s, s.Final())
		}
	}
}
