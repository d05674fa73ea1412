package forward

import (
	"encoding/base64"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/selvage-edge/selvage/edge/geo"
	"github.com/selvage-edge/selvage/runtime/function"
)

var whole = Envelope{
	RequestID: strings.Repeat("0a", 16), Function: function.ID{Project: "shop", Name: "cart"}, Authority: "a.example", Target: "/a%2Fb?q",
	Protocol: "HTTP/3.0", Client: netip.MustParseAddrPort("[2001:db8::1]:9"), Place: &geo.Place{Country: "GB", City: "Łódź"}, Age: time.Second,
}

func TestEnvelopeRoundTrip(t *testing.T) {
	r := httptest.NewRequest("GET", Path, nil)
	if err := whole.set(r.Header); err != nil {
		t.Fatal(err)
	}
	got, err := Unpack(r)
	if err != nil || !reflect.DeepEqual(*got, whole) || r.Host != "a.example" || r.RequestURI != whole.Target || r.RemoteAddr != "[2001:db8::1]:9" || len(r.Header) != 0 {
		t.Errorf("%+v, %v; %+v", got, err, r)
	}
}

func FuzzUnpack(f *testing.F) {
	h := http.Header{}
	_ = whole.set(h)
	b, _ := base64.RawURLEncoding.DecodeString(h.Get(envelopeHeader))
	f.Add(b)
	f.Add([]byte(`{"id":"00000000000000000000000000000000","function":{"Project":"p","Name":"n"},"protocol":"HTTP/1.1","target":"/%zz","age":1}`))
	f.Add([]byte(`{"age":-1,"place":{"located":true,"latitude":1e9}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		r := httptest.NewRequest("GET", Path, nil)
		r.Header[envelopeHeader] = []string{base64.RawURLEncoding.EncodeToString(b)}
		e, err := Unpack(r)
		if err != nil {
			return
		}
		if e.validate() != nil || r.URL == nil || r.Header[envelopeHeader] != nil {
			t.Fatalf("%q was taken as %+v", b, e)
		}
	})
}

// A share of each second's exchanges overflows, and no more.
func TestBudget(t *testing.T) {
	now := time.Unix(0, 0)
	b := budget{share: 0.1, now: func() time.Time { return now }}
	for second := range 3 {
		taken := 0
		for range 1000 {
			b.seen.Add(1)
			if b.take() {
				taken++
			}
		}
		if taken != 100 {
			t.Errorf("second %d: %d of 1000 overflowed, want 100", second, taken)
		}
		now = now.Add(time.Second)
	}
	if none := (&budget{now: time.Now}); none.take() {
		t.Error("none may overflow, and one did")
	}
}
