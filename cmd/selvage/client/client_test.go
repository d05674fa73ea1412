package client

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/selvage-edge/selvage/control/api"
	"github.com/selvage-edge/selvage/control/bundle"
)

// What somebody answers at control's address is shown as text, and not without end.
func TestRefusalIsPlainAndBounded(t *testing.T) {
	long := strings.Repeat("x", 1<<18)
	const bad = "\x1b]0;owned\x07\u009b2J\u202e"
	p := api.Problem{Title: bad + "t", Detail: bad + long, Hint: "deploy again" + bad, Instance: bad, Status: 500}
	for range 1000 {
		p.Faults = append(p.Faults, bundle.Fault{Line: 3, Key: bad, Message: "more" + bad})
	}
	document, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	for name, body := range map[string]string{"problem": string(document), "text": bad + "deploy again" + long, "no JSON": "{" + bad + "deploy again"} {
		got := refusal(&http.Response{StatusCode: 500, Body: io.NopCloser(strings.NewReader(body))}).Error()
		if strings.ContainsAny(got, "\x1b\x07\u009b\u202e") || len(got) > 32<<10 || !strings.Contains(got, "deploy again") {
			t.Errorf("%s: %d bytes: %.200q", name, len(got), got)
		}
	}
}
