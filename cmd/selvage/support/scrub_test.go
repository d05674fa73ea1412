package support

import (
	"strings"
	"testing"
)

func TestScrub(t *testing.T) {
	var s Scrubber
	s.Know("hunter2-known")
	s.Know("ab") // would be everywhere
	for in, want := range map[string]string{
		"token = \"slv_abcdefghijklmnop_abcd\"\nproject = \"p\"":           "token = \"[redacted]\"\nproject = \"p\"",
		"joined with slvjoin_QUJD-_x now":                                  "joined with [redacted] now",
		"url = \"nats://user:pw@10.0.0.1:4222\"":                           "url = \"nats://[redacted]@10.0.0.1:4222\"",
		`{"api_key":"a\"b","name":"n"}`:                                    `{"api_key":"[redacted]","name":"n"}`,
		"Authorization: Bearer abc\nHost: x":                               "Authorization: \"[redacted]\"\nHost: x",
		"db_password='p w'\nx=1":                                           "db_password=\"[redacted]\"\nx=1",
		"it said hunter2-known twice, hunter2-known":                       "it said [redacted] twice, [redacted]",
		"a -----BEGIN PRIVATE KEY-----\nMIIx\n-----END PRIVATE KEY----- b": "a [redacted] b",
		"cut -----BEGIN EC PRIVATE KEY-----\nMIIx":                         "cut [redacted]",
		"a cable and a table; key = \"/etc/selvage/tls.key\"":              "a cable and a table; key = \"/etc/selvage/tls.key\"",
	} {
		if got := s.Text(in); got != want {
			t.Errorf("%q\n became %q\n want   %q", in, got, want)
		}
	}
	b, err := s.JSON(map[string]any{"bindings": map[string]any{"variables": map[string]string{"DB": "s3cr3t"}}, "list": []string{"slv_abcdefghijklmnop_abcd"}})
	if err != nil || strings.Contains(string(b), "s3cr3t") || strings.Contains(string(b), "slv_") || !strings.Contains(string(b), `"DB": "[redacted]"`) {
		t.Errorf("%s, %v", b, err)
	}
}

// Whatever the text, tokens and keys in it are gone, and it ends.
func FuzzScrub(f *testing.F) {
	f.Add("token = \"x\"\n", "tail")
	f.Add("-----BEGIN PRIVATE KEY-----", "://a@b@c")
	const token = "slv_abcdefghijklmnop_abcdefgh"
	f.Fuzz(func(t *testing.T, before, after string) {
		var s Scrubber
		if out := s.Text(before + " " + token + " " + after); strings.Contains(out, token) {
			t.Errorf("the token is still in %q", out)
		}
	})
}
