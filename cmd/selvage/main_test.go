package main

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// TestMain lets this test binary be the program: the fleet of the tests runs it
// as control node, keeper, server and helper.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && !strings.HasPrefix(os.Args[1], "-test.") {
		main()
		return
	}
	os.Exit(m.Run())
}

// result is what one call of the program gave.
type result struct {
	code        int
	out, errout string
}

// selvage runs the program with env added to the environment.
func selvage(t *testing.T, env []string, args ...string) result {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe, args...)
	cmd.Env = append(os.Environ(), env...)
	var out, errout bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errout
	r := result{}
	var exit *exec.ExitError
	if err := cmd.Run(); errors.As(err, &exit) {
		r.code = exit.ExitCode()
	} else if err != nil {
		t.Fatal(err)
	}
	r.out, r.errout = out.String(), errout.String()
	return r
}

// expect fails the test unless the call ended with code and said all of these.
func (r result) expect(t *testing.T, code int, said ...string) {
	t.Helper()
	if r.code != code {
		t.Errorf("exit code %d, want %d\n%s%s", r.code, code, r.out, r.errout)
	}
	for _, s := range said {
		if !strings.Contains(r.out+r.errout, s) {
			t.Errorf("%q is not in:\n%s%s", s, r.out, r.errout)
		}
	}
}
