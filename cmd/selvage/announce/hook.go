package announce

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/selvage-edge/selvage/runtime/plain"
)

// ExaBGP returns a hook that writes the commands of ExaBGP's text API for each prefix.
func ExaBGP(w io.Writer, prefixes []netip.Prefix) Hook {
	return func(_ context.Context, up bool, _ string) error {
		var b strings.Builder
		for _, p := range prefixes {
			fmt.Fprintf(&b, "%s route %s next-hop self\n", word(up), p)
		}
		_, err := io.WriteString(w, b.String())
		return err
	}
}

// CommandLimit is how long a command may take.
const CommandLimit = 10 * time.Second

// Command returns a hook that runs a shell command. $SELVAGE_ANYCAST is
// announce or withdraw, $SELVAGE_REASON what was found.
func Command(command string) Hook {
	return func(ctx context.Context, up bool, why string) error {
		ctx, cancel := context.WithTimeout(ctx, CommandLimit)
		defer cancel()
		cmd := exec.CommandContext(ctx, "sh", "-c", command)
		cmd.Env = append(os.Environ(), "SELVAGE_ANYCAST="+word(up), "SELVAGE_REASON="+plain.Line(why, len(why)))
		cmd.WaitDelay = time.Second // what it started may hold its output open
		out, err := cmd.CombinedOutput()
		if err != nil {
			return fmt.Errorf("%w: %s", err, plain.Line(string(out), 1<<10))
		}
		return nil
	}
}

// All calls each hook, whatever became of the others.
func All(hooks ...Hook) Hook {
	return func(ctx context.Context, up bool, why string) error {
		var errs []error
		for _, h := range hooks {
			errs = append(errs, h(ctx, up, why))
		}
		return errors.Join(errs...)
	}
}
