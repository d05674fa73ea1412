package function

import (
	"strings"
	"testing"
)

func TestPlacementAllows(t *testing.T) {
	lon := LabelsOf("lon-1", "lon", "eu", []string{"tier=large"})
	nyc := LabelsOf("nyc-1", "nyc", "us", nil)
	for _, c := range []struct {
		p        Placement
		lon, nyc bool
		hold     bool // may nyc
	}{
		{Placement{}, true, true, true},
		{Placement{Include: []string{"region=eu"}}, true, false, true},
		{Placement{Include: []string{"region=eu"}, Residency: true}, true, false, false},
		{Placement{Include: []string{"region=eu", "pop=nyc"}, Residency: true}, true, true, true},
		{Placement{Include: []string{"region=eu"}, Exclude: []string{"pop=lon"}}, false, false, true},
		{Placement{Exclude: []string{"region=us"}, Residency: true}, true, false, false},
		{Placement{Include: []string{"tier=large"}}, true, false, true},
		{Placement{Include: []string{"node=nyc-1"}}, false, true, true},
	} {
		if c.p.Allows(lon) != c.lon || c.p.Allows(nyc) != c.nyc || c.p.MayHold(nyc) != c.hold {
			t.Errorf("%s: lon %v, nyc %v, nyc holds %v", c.p, c.p.Allows(lon), c.p.Allows(nyc), c.p.MayHold(nyc))
		}
		if err := c.p.Validate(); err != nil {
			t.Errorf("%s: %v", c.p, err)
		}
	}
}

func TestPlacementRefused(t *testing.T) {
	for said, p := range map[string]Placement{
		"want key=value":            {Include: []string{"eu"}},
		`write it "region=eu"`:      {Include: []string{"region = eu"}},
		"what certificates prove":   {Include: []string{"tier=large"}, Residency: true},
		"pins the function nowhere": {Residency: true},
		"65 labels; at most 64":     {Exclude: strings.Fields(strings.Repeat("pop=lon ", 65))},
	} {
		if err := p.Validate(); err == nil || !strings.Contains(err.Error(), said) {
			t.Errorf("%+v: %v, want %q", p, err, said)
		}
	}
}

func FuzzParseLabel(f *testing.F) {
	for _, s := range []string{"region=eu", " region = eu ", "=", "a=b=c", "Pop=LON", "pop=\x00", strings.Repeat("a", 64) + "=b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		l, err := ParseLabel(s)
		if err != nil {
			return
		}
		if again, err := ParseLabel(l); err != nil || again != l {
			t.Fatalf("%q reads as %q, and that as %q, %v", s, l, again, err)
		}
	})
}
