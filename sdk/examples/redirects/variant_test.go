package main

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"
)

// variantOf writes the variant and returns a way to ask for it with a cookie, which
// returns where it sends and the cookie it sets.
func variantOf(t *testing.T, name, value string) func(cookie *http.Cookie) (string, *http.Cookie) {
	t.Helper()
	if _, err := links.Put(t.Context(), "variant:"+name, []byte(value)); err != nil {
		t.Fatal(err)
	}
	return func(cookie *http.Cookie) (string, *http.Cookie) {
		r := httptest.NewRequest(http.MethodGet, "/ab/"+name, nil)
		r.SetPathValue("name", name)
		if cookie != nil {
			r.AddCookie(cookie)
		}
		w := httptest.NewRecorder()
		choose(w, r)
		if w.Code != http.StatusFound {
			return fmt.Sprint(w.Code), nil
		}
		return w.Header().Get("Location"), w.Result().Cookies()[0]
	}
}

const even = `{"targets": [{"name": "a", "url": "https://a.example/", "weight": 1}, {"name": "b", "url": "https://b.example/", "weight": 1}]}`

// A browser keeps its target for as long as that is offered, and no longer.
func TestVariantsStick(t *testing.T) {
	ask := variantOf(t, "home", even)
	for range 20 {
		first, cookie := ask(nil)
		for range 20 {
			if again, c := ask(cookie); again != first || c.Value != cookie.Value {
				t.Fatalf("%s, then %s", first, again)
			}
		}
	}
	ask = variantOf(t, "home", `{"targets": [{"name": "a", "url": "https://a.example/", "weight": 0}, {"name": "b", "url": "https://b.example/", "weight": 1}]}`)
	for _, had := range []string{"a", "b", "never", ""} {
		if got, c := ask(&http.Cookie{Name: cookieName("home"), Value: had}); got != "https://b.example/" || c.Value != "b" {
			t.Errorf("who had %q is sent to %s", had, got)
		}
	}
}

// Each target is drawn; that one of two is missed in 200 draws has a probability of 2^-199.
func TestVariantsAreDrawn(t *testing.T) {
	ask := variantOf(t, "draw", even)
	seen := map[string]bool{}
	for range 200 {
		target, _ := ask(nil)
		seen[target] = true
	}
	if len(seen) != 2 {
		t.Errorf("drawn: %v", seen)
	}
}

func TestVariantsThatSayNothing(t *testing.T) {
	for name, value := range map[string]string{"none": `{"targets": []}`, "weightless": `{"targets": [{"name": "a", "url": "https://a.example/"}]}`} {
		if got, _ := variantOf(t, name, value)(nil); got != "404" {
			t.Errorf("%s: %s", name, got)
		}
	}
	if got, _ := variantOf(t, "broken", "no JSON")(nil); got != "500" {
		t.Errorf("broken: %s", got)
	}
}
