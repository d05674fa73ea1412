package up

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A node whose first join was broken off gets a token again; one that joined gets none.
func TestABrokenOffJoinIsDoneAgain(t *testing.T) {
	l := layout(t, 1)
	n := l.Edges[0]
	script := filepath.Join(l.Dir, "selvage")
	text := "#!/bin/sh\ncase $1 in join-token) echo '{\"token\": \"t1\"}';; edge) echo \"token=$SELVAGE_JOIN_TOKEN\";; esac\n"
	if err := os.WriteFile(script, []byte(text), 0o700); err != nil {
		t.Fatal(err)
	}
	id := filepath.Join(n.State, "identity")
	if err := os.MkdirAll(id, 0o700); err != nil {
		t.Fatal(err)
	}
	start := func() string {
		f := Fleet{Layout: l, Selvage: script}
		if err := os.RemoveAll(n.Log); err != nil {
			t.Fatal(err)
		}
		if err := f.StartEdge(t.Context(), n); err != nil {
			t.Fatal(err)
		}
		<-f.Edges[n.Name].Done()
		return strings.TrimSpace(read(t, n.Log))
	}
	if got := start(); got != "token=t1" {
		t.Errorf("an empty identity: %q", got)
	}
	if err := os.WriteFile(filepath.Join(id, "node.pem"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if got := start(); got != "token=" {
		t.Errorf("an identity: %q", got)
	}
}
