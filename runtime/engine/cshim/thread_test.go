package cshim

import (
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"
)

const unheard = "SELVAGE_TEST_UNHEARD"

// A thread that cannot be heard may still run its guest: the process ends, whoever
// recovers, rather than give the guest's memory to another.
func TestUnheardThreadIsTheEnd(t *testing.T) {
	if os.Getenv(unheard) != "" {
		waitUnheard()
	}
	child := exec.Command(os.Args[0], "-test.run=^TestUnheardThreadIsTheEnd$")
	child.Env = append(os.Environ(), unheard+"=1")
	out, err := child.CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 2 || !strings.Contains(string(out), "panic: a guest's thread cannot be heard") {
		t.Errorf("%v: %s", err, out)
	}
}

// waitUnheard exits with 0 if the wait returns, or its panic can be recovered from.
func waitUnheard() {
	defer os.Exit(0)
	defer func() { _ = recover() }()
	r, w, err := os.Pipe()
	if err != nil {
		panic(err)
	}
	w.Close()
	(&Thread{done: r}).wait()
}
