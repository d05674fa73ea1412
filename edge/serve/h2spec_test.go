package serve_test

import (
	"encoding/xml"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/selvage-edge/selvage/edge/listen"
)

// h2specTests is how many cases the pinned h2spec has without its strict ones.
const h2specTests = 145

// h2specKnown are the cases that are not as h2spec wants them, each with the
// reason. One that passes after all must leave the list.
var h2specKnown = map[string]string{
	"http2/6.5.3 Sends multiple values of SETTINGS_INITIAL_WINDOW_SIZE": "net/http hangs up on a SETTINGS frame that has a setting twice",
	"http2/8.1.2.2 Sends a HEADERS frame that contains the connection-specific header field": "net/http answers 400, " +
		"which RFC 9113 §8.1.1 allows in place of the stream error",
	`http2/8.1.2.2 Sends a HEADERS frame that contains the TE header field with any value other than "trailers"`: "as above",
}

// TestH2Spec runs h2spec, the conformance suite of HTTP/2 and HPACK, against the
// listener with a guest behind it.
func TestH2Spec(t *testing.T) {
	if testing.Short() {
		t.Skip("h2spec takes half a minute: it waits for what does not come")
	}
	d := openDoor(t, listen.Config{}, map[string]wat{"/": hello})
	host, port, err := net.SplitHostPort(d.sockets.Addr())
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "report.xml")
	out, err := exec.CommandContext(t.Context(), "go", "tool", "h2spec", "-h", host, "-p", port, "-t", "-k", "-o", "10", "-j", file).CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("go tool h2spec: %v", err)
	}
	report, err := os.ReadFile(file)
	if err != nil {
		t.Fatalf("h2spec wrote no report: %v\n%s", err, out)
	}
	checkH2Spec(t, report)
}

// outcome is what h2spec says of a case that did not pass.
type outcome struct {
	Text string `xml:",innerxml"`
}

func (o *outcome) String() string {
	if o == nil {
		return ""
	}
	return o.Text
}

func checkH2Spec(t *testing.T, report []byte) {
	t.Helper()
	var suites struct {
		Suites []struct {
			Cases []struct {
				Package string   `xml:"package,attr"`
				Desc    string   `xml:"classname,attr"`
				Failure *outcome `xml:"failure"`
				Error   *outcome `xml:"error"`
				Skipped *outcome `xml:"skipped"`
			} `xml:"testcase"`
		} `xml:"testsuite"`
	}
	if err := xml.Unmarshal(report, &suites); err != nil {
		t.Fatal(err)
	}
	ran := 0
	for _, s := range suites.Suites {
		for _, c := range s.Cases {
			ran++
			id := c.Package + " " + c.Desc
			reason, known := h2specKnown[id]
			switch failed := c.Failure != nil || c.Error != nil || c.Skipped != nil; {
			case failed && !known:
				t.Errorf("%s: %v%v%v", id, c.Failure, c.Error, c.Skipped)
			case !failed && known:
				t.Errorf("%s passes: take it from the list", id)
			case failed:
				t.Logf("%s: %s", id, reason)
			}
		}
	}
	if ran != h2specTests {
		t.Errorf("%d cases ran, want %d", ran, h2specTests)
	}
}
