// Package tooltest says what becomes of a test whose machine lacks what it needs: on a
// developer's it is skipped; where CI=true is set it fails, or says aloud that it was not
// run if no installation could help.
package tooltest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"testing"
)

// Path finds a program. debian are the packages that have it, for apt-get install: .ci/run
// installs them.
func Path(t testing.TB, program, debian string) string {
	t.Helper()
	path, err := exec.LookPath(program)
	if err != nil {
		Need(t, fmt.Sprintf("%s: apt-get install %s", err, debian))
	}
	return path
}

// Need ends a test for want of what CI has to give: root, a program.
func Need(t testing.TB, why string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatalf("NOT RUN: %s", why)
	}
	t.Skipf("SKIPPED: %s", why)
}

// Machine ends a test for want of what only another kernel or machine has. go test shows
// the words of a skipped test to nobody, so they also go to the end of the file that
// SELVAGE_NOT_RUN names, if it does: .ci/run shows it last.
func Machine(t testing.TB, why string) {
	t.Helper()
	if name := os.Getenv("SELVAGE_NOT_RUN"); name != "" {
		f, err := os.OpenFile(name, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
		if err != nil {
			t.Fatal(err)
		}
		_, err = fmt.Fprintf(f, "%s: %s\n", t.Name(), why)
		if err := errors.Join(err, f.Close()); err != nil {
			t.Fatal(err)
		}
	}
	t.Skipf("SKIPPED: %s", why)
}
