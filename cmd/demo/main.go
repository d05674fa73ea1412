// Command demo runs the main job end to end on this machine: a control node and
// three PoPs as processes, functions built, deployed, asked over every HTTP
// version, changed under load, killed and cut off; then one table of what held.
package main

import (
	"context"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/selvage-edge/selvage/cmd/selvage/up"
)

// limit bounds the whole run; compiling four examples on three nodes with two cores is most of it.
const limit = 15 * time.Minute

func main() {
	selvage := flag.String("selvage", "bin/selvage", "the executable to show")
	jsonFile := flag.String("json", "", "also write each check to this file, as JSON lines")
	keep := flag.Bool("keep", false, "keep the state folder, and say where it is")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	ctx, cancel := context.WithTimeout(ctx, limit)
	ok, err := run(ctx, *selvage, *jsonFile, *keep)
	cancel()
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
	}
	if err != nil || !ok {
		os.Exit(1)
	}
}

// run does everything and cleans up after itself on every path.
func run(ctx context.Context, selvage, jsonFile string, keep bool) (ok bool, err error) {
	bin, err := filepath.Abs(selvage)
	if err != nil {
		return false, err
	}
	dir, err := os.MkdirTemp("", "selvage-demo-")
	if err != nil {
		return false, err
	}
	if keep {
		fmt.Println("state is kept in", dir)
	} else {
		defer os.RemoveAll(dir)
	}
	layout, err := up.Plan(up.Options{Dir: dir, PoPs: 3, Base: netip.MustParseAddr("127.0.0.10"), Port: 8443})
	if err != nil {
		return false, err
	}
	d := &demo{fleet: up.Fleet{Layout: layout, Selvage: bin}, work: filepath.Join(dir, "functions")}
	defer d.fleet.Stop()
	if err := d.nameServers(dir); err != nil {
		return false, err
	}
	if d.origin, err = startOrigin(); err != nil {
		return false, err
	}
	defer d.origin.close()
	err = d.show(ctx)
	if err != nil && !keep {
		d.showLogs(os.Stderr)
	}
	d.checks.table(os.Stdout)
	if jsonFile != "" {
		if werr := d.checks.writeJSON(jsonFile); err == nil {
			err = werr
		}
	}
	return err == nil && d.checks.allHold(), err
}
