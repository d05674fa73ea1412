package edge

import (
	"net/http/httptest"
	"strings"
	"testing"
)

func TestLanguage(t *testing.T) {
	for _, c := range []struct{ header, offered, want string }{
		{"", "en de", "en"},
		{"de", "en de", "de"},
		{"DE", "en de", "de"},
		{"de-CH", "en de", "de"},    // lookup
		{"de", "en de-CH", "de-CH"}, // filtering
		{"fr", "en de", ""},
		{"fr, *;q=0.1", "en de", "en"},
		{"en;q=0.5, de;q=0.8", "en de", "de"},
		{"en;q=0.5, de;q=0.5", "en de", "en"},
		{"en, de;q=0", "de en", "en"},
		{"de;q=0", "de", ""},
		{"*, de;q=0", "de", ""},
		{"de-CH, de;q=0", "de", ""},
		{"de, de-AT;q=0.2", "de-AT en", "de-AT"},
		{"en;q=0.3, de;q=0.9, de-AT;q=0.2", "de-AT en", "en"}, // the longest range counts
		{"zh-Hant-CN-x-private", "zh zh-Hant", "zh-Hant"},
		{"fr-CH;q=0.9, de-CH;q=0.8", "de fr", "fr"},
		{"en-US,en;q=0.9,de;q=0.8", "de en-GB", "en-GB"},
		{"den", "de", ""},
		{"de;q=2, en;q=0.1", "de en", "en"}, // not a weight: that range is none
		{"de;q=NaN", "de", "de"},            // nothing was said
		{";;;,,,", "en de", "en"},
		{"de", "", ""},
		{strings.Repeat("xx,", 200) + "de", "en de", ""},
	} {
		r := httptest.NewRequest("GET", "/", nil)
		if c.header != "" {
			r.Header.Set("Accept-Language", c.header)
		}
		if got := Language(r, strings.Fields(c.offered)...); got != c.want {
			t.Errorf("%q of %q: got %q, want %q", c.header, c.offered, got, c.want)
		}
	}
}

func FuzzLanguage(f *testing.F) {
	f.Add("de-CH, en;q=0.5, *;q=0", "de")
	f.Fuzz(func(t *testing.T, header, offer string) {
		r := httptest.NewRequest("GET", "/", nil)
		r.Header["Accept-Language"] = []string{header}
		if got := Language(r, offer, "en"); got != "" && got != offer && got != "en" {
			t.Errorf("%q was not offered", got)
		}
	})
}

func TestDeviceOf(t *testing.T) {
	const (
		phone  = "Mozilla/5.0 (Linux; Android 14; Pixel 8) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Mobile Safari/537.36"
		tab    = "Mozilla/5.0 (Linux; Android 13; SM-X900) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36"
		iphone = "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.5 Mobile/15E148 Safari/604.1"
		ipad   = "Mozilla/5.0 (iPad; CPU OS 16_0 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/16.0 Mobile/15E148 Safari/604.1"
		mac    = "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.5 Safari/605.1.15"
		tv     = "Mozilla/5.0 (SMART-TV; Linux; Tizen 5.0) AppleWebKit/537.36 (KHTML, like Gecko) SamsungBrowser/2.2 Chrome/63 TV Safari/537.36"
		google = "Mozilla/5.0 (Linux; Android 6.0.1; Nexus 5X) Chrome/126 Mobile Safari/537.36 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)"
	)
	for _, c := range []struct {
		agent, mobile, factors string
		want                   Device
	}{
		{phone, "", "", Mobile}, {tab, "", "", Tablet}, {iphone, "", "", Mobile}, {ipad, "", "", Tablet}, {mac, "", "", Desktop}, {tv, "", "", TV}, {google, "?1", "", Bot},
		{"", "", "", Unknown}, {"", "?1", "", Mobile}, {"", "?0", "", Desktop},
		{phone, "?0", "", Desktop}, // asked for the desktop's page
		{tab, "?0", "", Tablet}, {mac, "?1", "", Mobile}, {mac, "?0", `"Tablet"`, Tablet}, {"", "?1", `"Mobile"`, Mobile}, {mac, "", `"Desktop", "XR"`, Desktop},
		{"curl/8.5.0", "", "", Bot},
	} {
		r := httptest.NewRequest("GET", "/", nil)
		for name, v := range map[string]string{"User-Agent": c.agent, "Sec-CH-UA-Mobile": c.mobile, "Sec-CH-UA-Form-Factors": c.factors} {
			if v != "" {
				r.Header.Set(name, v)
			}
		}
		if got := DeviceOf(r); got != c.want {
			t.Errorf("%+v: %s", c, got)
		}
	}
}

func TestPlace(t *testing.T) {
	var m Metadata
	for _, p := range [][2]string{{"country", "GB"}, {"subdivision", "ENG"}, {"city", "Leeds"}, {"latitude", "53.8"}, {"longitude", "-1.55"}, {"time-zone", "Europe/London"},
		{"asn", "64500"}, {"organization", "Example"}, {"eu", "1"}, {"place-assumed", "1"}, {"unknown", "x"}} {
		m.set(p[0], p[1])
	}
	want := Place{Country: "GB", Region: "ENG", City: "Leeds", Located: true, Latitude: 53.8, Longitude: -1.55, TimeZone: "Europe/London", ASN: 64500, Organization: "Example", EU: true, Assumed: true}
	if m.Place != want {
		t.Errorf("got %+v, want %+v", m.Place, want)
	}
}
