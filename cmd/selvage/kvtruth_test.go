package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/selvage-edge/selvage/control/api"
	"github.com/selvage-edge/selvage/control/identity"
	"github.com/selvage-edge/selvage/runtime/hostcall"
)

// truth speaks to the KV of the control API over connections of its own. It
// tells what is known of a request that control was killed under.
type truth struct {
	http     *http.Client
	at       string // of the namespace: .../kv/NAME
	token    string
	answerIn time.Duration
}

// came is what is known of a request.
type came int

const (
	done    came = iota // it was answered: done
	refused             // it was answered: not done, by its condition
	missing             // it was answered: there is no such key
	maybe               // no answer, or one that does not tell
	never               // nobody took it
)

// answer is what a request gave.
type answer struct {
	came
	value, metadata []byte
	revision        uint64
	sum             int64 // an increment's
	absent          bool  // a deletion found nothing
}

func (w *world) truth(t *testing.T, namespace string) *truth {
	t.Helper()
	tg := w.target(t)
	root, err := identity.ParseKeyID(tg.Root)
	if err != nil {
		t.Fatal(err)
	}
	tr := identity.ClientTransport(root, nil)
	t.Cleanup(tr.CloseIdleConnections)
	return &truth{http: &http.Client{Transport: tr}, at: tg.Control[0] + "/v1/projects/" + tg.Project + "/kv/" + namespace, token: tg.Token, answerIn: time.Minute}
}

// do sends a request; an answer that is none of those of came fails with an error.
func (k *truth) do(ctx context.Context, method, path string, header http.Header, body []byte) (answer, []byte, error) {
	ctx, cancel := context.WithTimeout(ctx, k.answerIn)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, method, k.at+path, bytes.NewReader(body))
	if err != nil {
		return answer{}, nil, err
	}
	for name, v := range header {
		r.Header[name] = v
	}
	r.Header.Set("Authorization", "Bearer "+k.token)
	resp, err := k.http.Do(r)
	if errors.Is(err, syscall.ECONNREFUSED) {
		return answer{came: never}, nil, nil
	}
	if err != nil {
		return answer{came: maybe}, nil, ctx.Err()
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return answer{came: maybe}, nil, ctx.Err()
	}
	var a answer
	switch {
	case resp.StatusCode == http.StatusOK:
		a.revision, _ = strconv.ParseUint(resp.Header.Get(api.HeaderRevision), 10, 64) // answers in JSON have it there too
		a.metadata, err = base64.StdEncoding.DecodeString(resp.Header.Get(api.HeaderMetadata))
	case resp.StatusCode == http.StatusConflict:
		a.came = refused
	case resp.StatusCode == http.StatusNotFound && strings.Contains(string(text), "problem:not-found"):
		a.came = missing
	case resp.StatusCode >= 500:
		a.came = maybe
	default:
		err = fmt.Errorf("%s %s: %d %s", method, path, resp.StatusCode, text)
	}
	return a, text, err
}

// atRevision is the expected revision as a query.
func atRevision(ifRevision int64) string {
	if ifRevision == hostcall.AnyRevision {
		return ""
	}
	return "?if_revision=" + strconv.FormatInt(ifRevision, 10)
}

func (k *truth) put(ctx context.Context, key string, value, metadata []byte, ifRevision int64) (answer, error) {
	h := http.Header{}
	if len(metadata) > 0 {
		h.Set(api.HeaderMetadata, base64.StdEncoding.EncodeToString(metadata))
	}
	return k.written(k.do(ctx, http.MethodPut, "/keys/"+url.PathEscape(key)+atRevision(ifRevision), h, value))
}

func (k *truth) remove(ctx context.Context, key string, ifRevision int64) (answer, error) {
	return k.written(k.do(ctx, http.MethodDelete, "/keys/"+url.PathEscape(key)+atRevision(ifRevision), nil, nil))
}

func (*truth) written(a answer, text []byte, err error) (answer, error) {
	if err != nil || a.came != done {
		return a, err
	}
	var w api.Written
	err = json.Unmarshal(text, &w)
	a.revision, a.absent = w.Revision, w.Absent
	return a, err
}

func (k *truth) increment(ctx context.Context, key string, by int64) (answer, error) {
	a, text, err := k.do(ctx, http.MethodPost, "/increment/"+url.PathEscape(key)+"?by="+strconv.FormatInt(by, 10), nil, nil)
	if err != nil || a.came != done {
		return a, err
	}
	var w api.Incremented
	err = json.Unmarshal(text, &w)
	a.sum, a.revision = w.Value, w.Revision
	return a, err
}

func (k *truth) get(ctx context.Context, key string) (answer, error) {
	a, text, err := k.do(ctx, http.MethodGet, "/keys/"+url.PathEscape(key), nil, nil)
	a.value = text
	return a, err
}

// certain asks until the answer tells something: control that has much to do may refuse
// for a while. If nobody takes the question, that is what is known.
func certain(ctx context.Context, ask func() (answer, error)) (answer, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	for {
		a, err := ask()
		if err != nil || a.came != maybe {
			return a, err
		}
		select {
		case <-ctx.Done():
			return a, fmt.Errorf("no answer that tells anything: %w", ctx.Err())
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// setting is a number from the environment, or another if it is not set.
func setting(t *testing.T, name string, otherwise uint64) uint64 {
	t.Helper()
	s := os.Getenv(name)
	if s == "" {
		return otherwise
	}
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}

// restartControl starts control after it was killed and is ready when it answers.
func (w *world) restartControl(t *testing.T) {
	t.Helper()
	<-w.Control.Done()
	if err := w.StartControl(t.Context()); err != nil {
		t.Fatal(err)
	}
}
