package api

import (
	"strings"
	"testing"

	"github.com/selvage-edge/selvage/control/report"
)

// A pin that no node fulfils is refused; a placement that none does is noted.
func TestPlacementThatNoNodeFulfils(t *testing.T) {
	f := start(t)
	wish := func(label, more string) string { return "[placement]\ninclude = [\"" + label + "\"]\n" + more }
	if d := f.deploy("early", wish("pop=lon", "residency = true"), module+"0"); !strings.Contains(strings.Join(d.Notes, " "), "no node has joined") {
		t.Errorf("before any node: %q", d.Notes)
	}
	lon := f.node("lon-1", "lon")
	f.want(200, f.send(lon, "POST", report.Path, report.Report{Node: "lon-1", PoP: "lon", Region: "forged", Labels: []string{"tier=large"}}), nil)

	pinned := func(label string) answer {
		info := f.upload("pinned", wish(label, "residency = true"), module+label)
		return f.admin("POST", "/v1/projects/default/functions/pinned/releases", DeployRequest{info.Digest})
	}
	p := f.refused(422, "placement", pinned("pop=lno"))
	if !strings.Contains(p.Detail, "pop=lno; residency") || !strings.Contains(p.Hint, "node=lon-1, pop=lon, tier=large") {
		t.Errorf("%+v", p)
	}
	f.refused(422, "placement", pinned("region=forged")) // its certificate does not say so
	f.want(201, pinned("pop=lon"), nil)
	if d := f.deploy("loose", wish("tier=small", ""), module+"1"); !strings.Contains(strings.Join(d.Notes, " "), "tier=small") {
		t.Errorf("notes: %q", d.Notes)
	}
	if d := f.deploy("well", wish("tier=large", ""), module+"2"); len(d.Notes) != 1 {
		t.Errorf("notes: %q", d.Notes)
	}
}

// Control gives a node what a function has only where that may be held.
func TestPinnedBlobsAndKeysStayThere(t *testing.T) {
	f := start(t)
	lon, nyc := f.node("lon-1", "lon"), f.node("nyc-1", "nyc")
	d := f.deploy("pinned", "[placement]\ninclude = [\"pop=lon\"]\nresidency = true\n[[kv]]\nname = \"secrets\"\naccess = \"write\"\n", module)
	blob := PeerBlobs + "/" + string(d.Release.Code)
	f.want(200, f.send(lon, "GET", blob, nil), nil)
	f.refused(404, "not-found", f.send(nyc, "GET", blob, nil))
	key := PeerKV + "/default/secrets/aw"
	f.want(200, f.send(lon, "PUT", key, []byte("v")), nil)
	for _, method := range []string{"GET", "PUT", "DELETE"} {
		if a := f.send(nyc, method, key, nil); a.StatusCode != 403 {
			t.Errorf("%s by a node that may not hold it: %d %s", method, a.StatusCode, a.body)
		}
	}
	// Once any function of the project that any node may hold binds it, so may they.
	f.deploy("free", "[[kv]]\nname = \"secrets\"\n", module+"free")
	f.want(200, f.send(nyc, "GET", key, nil), nil)
}
