package keeper

import (
	"os/exec"
	"strings"
	"testing"
)

// The keeper runs as long as the node does and must not be able to fail with
// the data path: it shares none of it.
func TestKeeperKnowsNothingOfTheDataPath(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", "github.com/selvage-edge/selvage/edge/keeper").Output()
	if err != nil {
		t.Fatal(err)
	}
	for dep := range strings.Lines(string(out)) {
		dep = strings.TrimSpace(dep)
		for _, heavy := range []string{"net/http", "crypto/tls", "github.com/quic-go", "github.com/bytecodealliance",
			"github.com/selvage-edge/selvage/runtime/engine", "github.com/selvage-edge/selvage/control"} {
			if strings.HasPrefix(dep, heavy) {
				t.Errorf("it depends on %s", dep)
			}
		}
	}
}
