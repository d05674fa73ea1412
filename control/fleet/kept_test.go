package fleet

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

func TestMembersAreKept(t *testing.T) {
	path := filepath.Join(t.TempDir(), "members.json")
	if none, err := LoadMembers(path); len(none) != 0 || err != nil {
		t.Errorf("without a file: %v, %v", none, err)
	}
	busy := Meta{Role: Node, PoP: "lon", Region: "eu", Peer: "192.0.2.1:9", Labels: "tier=large", Site: Site{Told: true, Load: 70}}
	calm := busy
	calm.Site.Load = 0
	b, err := EncodeMembers([]Member{{Name: "lon-1", Meta: busy, Health: Failed}})
	if err != nil {
		t.Fatal(err)
	}
	if err := SaveMembers(path, b); err != nil {
		t.Fatal(err)
	}
	got, err := LoadMembers(path)
	if want := []Member{{Name: "lon-1", Meta: calm, Health: Alive}}; err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, %v; want %+v", got, err, want)
	}
	for said, bad := range map[string]string{
		"want version 1":         `{"version":2}`,
		"not of a known":         `{"version":1,"members":[{"name":"lon-1","meta":"AAAA"}]}`,
		"want a-z":               `{"version":1,"members":[{"name":"LON 1"}]}`,
		"more than 4194304":      strings.Repeat(" ", maxKeptFile+1),
		"unexpected end of JSON": `{"version":1`,
	} {
		if err := os.WriteFile(path, []byte(bad), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := LoadMembers(path); got != nil || err == nil || !strings.Contains(err.Error(), said) {
			t.Errorf("%.60s: %v, %v; want %q", bad, got, err, said)
		}
	}
}

func FuzzMembers(f *testing.F) {
	b, _ := EncodeMembers([]Member{{Name: "lon-1", Meta: Meta{Role: Node, PoP: "lon", Peer: "192.0.2.1:9"}}})
	f.Add(b)
	f.Add([]byte(`{"version":1,"members":[{"name":"n","meta":"AQEA"}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		members, err := decodeMembers(b)
		if err != nil {
			return
		}
		again, err := EncodeMembers(members)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := decodeMembers(again); err != nil || len(got) != len(members) {
			t.Fatalf("%v came back as %v, %v", members, got, err)
		}
	})
}
