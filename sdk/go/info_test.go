package edge

import (
	"context"
	"testing"
)

// A handler's test says what the edge would.
func TestWithInfo(t *testing.T) {
	if got := Info(context.Background()); got != (Metadata{}) {
		t.Errorf("without any: %+v", got)
	}
	m := Metadata{PoP: "lon", Place: Place{Country: "GB"}}
	ctx := WithInfo(context.Background(), m)
	m.PoP = "changed"
	if got := Info(ctx); got.PoP != "lon" || got.Place.Country != "GB" {
		t.Errorf("%+v", got)
	}
}
