package agent

import (
	"io"
	"net/http"
	"strings"
	"testing"
)

// Why control or a neighbour refuses is shown in this node's log and reports.
func TestRefusalIsPlainAndBounded(t *testing.T) {
	const bad = `\u001b[2J\u009b\u202e`
	for name, body := range map[string]string{
		"problem": `{"title":"busy","detail":"busy ` + bad + strings.Repeat("x", 3<<10) + `"}`,
		"title":   `{"title":"busy ` + bad + `"}`,
		"text":    "busy \x1b[2J\xff" + strings.Repeat("\u202e", 1<<10),
	} {
		err := refusal(&http.Response{StatusCode: 503, Body: io.NopCloser(strings.NewReader(body))})
		if got := err.Error(); strings.ContainsAny(got, "\x1b\u009b\u202e") || len(got) > 4<<10 || !strings.HasPrefix(got, "control answered 503: busy") {
			t.Errorf("%s: %d bytes: %.200q", name, len(got), got)
		}
	}
}
