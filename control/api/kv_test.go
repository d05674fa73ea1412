package api

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/selvage-edge/selvage/control/catalog"
	"github.com/selvage-edge/selvage/runtime/hostcall"
)

const keysOf = "/v1/projects/default/kv/links/keys"

// escape percent-encodes every byte, so that nothing on the way can mean anything.
func escape(key string) string {
	var b strings.Builder
	for i := range len(key) {
		fmt.Fprintf(&b, "%%%02X", key[i])
	}
	return b.String()
}

func withNamespace(t *testing.T) *fixture {
	t.Helper()
	f := start(t)
	var ns Namespace
	f.want(200, f.admin("PUT", "/v1/projects/default/kv/links", nil), &ns)
	if ns.Mode != "cached" {
		t.Fatalf("made %+v", ns)
	}
	return f
}

// A namespace's mode stays as it is until another is named, and so does its bound.
func TestNamespaceModes(t *testing.T) {
	f := withNamespace(t)
	var ns Namespace
	minute := time.Minute.Milliseconds()
	for _, c := range []struct {
		set  NamespaceRequest
		want Namespace
	}{
		{NamespaceRequest{MaxStaleMS: &minute}, Namespace{"default", "links", catalog.ModeCached, minute}},
		{NamespaceRequest{Mode: catalog.ModeReplicated}, Namespace{"default", "links", catalog.ModeReplicated, minute}},
		{NamespaceRequest{}, Namespace{"default", "links", catalog.ModeReplicated, minute}},
	} {
		if f.want(200, f.admin("PUT", "/v1/projects/default/kv/links", c.set), &ns); ns != c.want {
			t.Errorf("%+v made %+v, want %+v", c.set, ns, c.want)
		}
	}
	f.refused(400, "invalid-request", f.admin("PUT", "/v1/projects/default/kv/links", NamespaceRequest{Mode: "mirrored"}))
	f.want(200, f.admin("PUT", "/v1/projects/default/kv/links", NamespaceRequest{Mode: catalog.ModeCached}), &ns)
	if ns.Mode != catalog.ModeCached {
		t.Errorf("back to %+v", ns)
	}
}

func TestKVTakesAnyBytes(t *testing.T) {
	f := withNamespace(t)
	every := make([]byte, 256)
	for i := range every {
		every[i] = byte(i)
	}
	for _, key := range []string{"a", "a/b", "/", "//", ".", "..", "../../x", "%2F", "a b+c?d#e", "\x00", "\xff\xfe", "é", string(every), strings.Repeat("k", 512)} {
		value := append([]byte("v\x00\r\n"), key...)
		var put Written
		f.want(200, f.admin("PUT", keysOf+"/"+escape(key), value), &put)
		got := f.admin("GET", keysOf+"/"+escape(key), nil)
		if got.StatusCode != 200 || !bytes.Equal(got.body, value) || got.Header.Get(HeaderRevision) != strconv.FormatUint(put.Revision, 10) {
			t.Errorf("%q: %d %q at %s, put at %d", key, got.StatusCode, got.body, got.Header.Get(HeaderRevision), put.Revision)
		}
		if got.Header.Get(HeaderEpoch) != strconv.FormatUint(f.store.Epoch(), 10) || got.Header.Get(HeaderAsOf) == "" || got.Header.Get(HeaderExpires) != "" {
			t.Errorf("%q: head %v", key, got.Header)
		}
	}
}

// A slash in a key needs no encoding, as long as the path stays clean.
func TestKVKeyWithPlainSlashes(t *testing.T) {
	f := withNamespace(t)
	f.want(200, f.admin("PUT", keysOf+"/a/b/c", []byte("v")), nil)
	if a := f.admin("GET", keysOf+"/"+escape("a/b/c"), nil); string(a.body) != "v" {
		t.Errorf("%d %s", a.StatusCode, a.body)
	}
}

func TestKVRefuses(t *testing.T) {
	f := withNamespace(t)
	f.refused(404, "not-found", f.admin("GET", keysOf+"/none", nil))
	f.refused(404, "no-namespace", f.admin("GET", "/v1/projects/default/kv/nowhere/keys/k", nil))
	f.refused(404, "no-namespace", f.admin("PUT", "/v1/projects/default/kv/nowhere/keys/k", []byte("v")))
	f.refused(404, "no-namespace", f.admin("PUT", "/v1/projects/other/kv/links/keys/k", []byte("v")))
	f.refused(400, "invalid-request", f.admin("PUT", "/v1/projects/default/kv/Links", nil))
	f.refused(400, "invalid-request", f.admin("PUT", "/v1/projects/default/kv/links", NamespaceRequest{Mode: "elsewhere"}))
	f.refused(400, "invalid-request", f.admin("PUT", keysOf+"/"+strings.Repeat("k", 513), []byte("v")))
	f.refused(400, "invalid-request", f.admin("PUT", keysOf+"/../keys/k", []byte("v"))) // not clean: not redirected either
	f.refused(400, "invalid-request", f.admin("PUT", keysOf+"/a//b", []byte("v")))
	f.refused(400, "invalid-request", f.admin("PUT", keysOf+"/k?ttl=-1s", nil))
	f.refused(400, "invalid-request", f.admin("PUT", keysOf+"/k?ttl=soon", nil))
	f.refused(400, "invalid-request", f.admin("PUT", keysOf+"/k?if_revision=-2", nil))
	f.refused(400, "invalid-request", f.admin("PUT", keysOf+"/k?if_revision=1", nil, "If-None-Match: *"))
	f.refused(400, "invalid-request", f.admin("GET", keysOf+"?limit=1001", nil))
	f.refused(400, "invalid-request", f.admin("GET", keysOf+"?cursor=***", nil))
	f.refused(413, "too-large", f.admin("PUT", keysOf+"/k", make([]byte, hostcall.MaxValueBytes+1)))
	f.refused(400, "invalid-request", f.admin("PUT", keysOf+"/", []byte("v")))
	f.refused(405, "method-not-allowed", f.admin("POST", keysOf+"/k", []byte("v")))
}

func TestKVConditions(t *testing.T) {
	f := withNamespace(t)
	var first, second Written
	f.want(200, f.admin("PUT", keysOf+"/k", []byte("1"), "If-None-Match: *"), &first)
	f.refused(409, "conflict", f.admin("PUT", keysOf+"/k?if_revision=0", []byte("2")))
	f.want(200, f.admin("PUT", keysOf+"/k", []byte("2"), fmt.Sprintf("If-Match: %q", fmt.Sprint(first.Revision))), &second)
	f.refused(409, "conflict", f.admin("PUT", fmt.Sprintf("%s/k?if_revision=%d", keysOf, first.Revision), []byte("3")))
	f.refused(409, "conflict", f.admin("DELETE", fmt.Sprintf("%s/k?if_revision=%d", keysOf, first.Revision), nil))
	f.want(200, f.admin("DELETE", fmt.Sprintf("%s/k?if_revision=%d", keysOf, second.Revision), nil), nil)
	f.refused(404, "not-found", f.admin("GET", keysOf+"/k", nil))
	f.want(200, f.admin("DELETE", keysOf+"/k", nil), nil)
}

func TestKVTimeToLive(t *testing.T) {
	f := withNamespace(t)
	f.want(200, f.admin("PUT", keysOf+"/k?ttl=200ms", []byte("v")), nil)
	a := f.admin("GET", keysOf+"/k", nil)
	if ms, err := strconv.ParseInt(a.Header.Get(HeaderExpires), 10, 64); a.StatusCode != 200 || err != nil || time.Until(time.UnixMilli(ms)) > 200*time.Millisecond {
		t.Fatalf("%d, expires %q: %v", a.StatusCode, a.Header.Get(HeaderExpires), err)
	}
	until(t, "it ends", func() bool { return f.admin("GET", keysOf+"/k", nil).StatusCode == 404 })
}

func TestKVLists(t *testing.T) {
	f := withNamespace(t)
	for _, k := range []string{"b", "a/1", "a/2", "a/\xff", "a/3"} {
		f.want(200, f.admin("PUT", keysOf+"/"+escape(k), []byte("v")), nil)
	}
	var got []string
	for cursor := ""; ; {
		var page KeyList
		f.want(200, f.admin("GET", keysOf+"?prefix=a%2F&limit=2&cursor="+url.QueryEscape(cursor), nil), &page)
		for _, k := range page.Keys {
			got = append(got, string(k.Key))
			if page.AsOf < k.Revision || page.Epoch == 0 {
				t.Errorf("as of %d of epoch %d, with a key of revision %d", page.AsOf, page.Epoch, k.Revision)
			}
			if (k.Text == "") != (string(k.Key) == "a/\xff") {
				t.Errorf("text of %q is %q", k.Key, k.Text)
			}
		}
		if page.Next == nil {
			break
		}
		cursor = base64.RawURLEncoding.EncodeToString(page.Next)
	}
	if fmt.Sprintf("%q", got) != `["a/1" "a/2" "a/3" "a/\xff"]` {
		t.Errorf("listed %q", got)
	}
	var list NamespaceList
	f.want(200, f.admin("GET", "/v1/projects/default/kv", nil), &list)
	if len(list.Namespaces) != 1 || list.Namespaces[0].Name != "links" {
		t.Errorf("namespaces: %+v", list)
	}
	var projects ProjectList
	f.want(200, f.admin("GET", "/v1/projects", nil), &projects)
	if fmt.Sprint(projects.Projects) != "[default]" {
		t.Errorf("projects: %v", projects)
	}
}

// A condition that is not met, and a value that cannot be counted on, are told in the words of
// who asked: what is there, and what to do.
func TestKVWords(t *testing.T) {
	f := withNamespace(t)
	var first, second Written
	f.want(200, f.admin("PUT", keysOf+"/k", []byte("word")), &first)
	f.want(200, f.admin("PUT", keysOf+"/k", []byte("words")), &second)
	at := fmt.Sprintf("%s/k?if_revision=%d", keysOf, first.Revision)
	now := fmt.Sprintf("revision %d", second.Revision)
	for name, c := range map[string]struct {
		status int
		kind   string
		a      answer
		want   []string
	}{
		"absent":        {409, "conflict", f.admin("PUT", keysOf+"/k?if_revision=0", nil), []string{`key "k" is there already, at ` + now, fmt.Sprintf("--if-revision %d", second.Revision)}},
		"none match":    {409, "conflict", f.admin("PUT", keysOf+"/k", nil, "If-None-Match: *"), []string{"is there already, at " + now}},
		"put at":        {409, "conflict", f.admin("PUT", at, nil), []string{"is at " + now, fmt.Sprintf("was to be at %d", first.Revision), "read it again"}},
		"delete at":     {409, "conflict", f.admin("DELETE", at, nil), []string{"is at " + now}},
		"gone":          {409, "conflict", f.admin("PUT", keysOf+"/none?if_revision=7", nil), []string{`key "none" is not there`, "--if-absent"}},
		"no number":     {400, "invalid-request", f.admin("POST", strings.TrimSuffix(keysOf, "keys")+"increment/k", nil), []string{"the value is no decimal number", "decimal number of 64 bits and nothing else"}},
		"a long key":    {400, "invalid-request", f.admin("PUT", keysOf+"/"+strings.Repeat("k", 600), nil), []string{"a key of 600 bytes"}},
		"a short life":  {400, "invalid-request", f.admin("PUT", keysOf+"/k?ttl=1ns", nil), []string{"time to live"}},
		"many revision": {400, "invalid-request", f.admin("GET", keysOf+"/k?at_least=99999", nil), []string{"revision 99999"}},
	} {
		p := f.refused(c.status, c.kind, c.a)
		said := p.Detail + "\n" + p.Hint
		for _, want := range c.want {
			if !strings.Contains(said, want) {
				t.Errorf("%s: %q, want %q", name, said, want)
			}
		}
		if strings.Contains(said, "store:") || strings.Contains(said, "differs") {
			t.Errorf("%s: not the user's words: %q", name, said)
		}
	}
}
