// Command peers measures speed as ratios: the same work done here, by
// wasmtime-go's own calls and by wazero, and requests against a bare Go handler
// behind the same listener, side by side in one run.
package main

import (
	"context"
	_ "embed"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/selvage-edge/selvage/runtime/compile"
	"github.com/selvage-edge/selvage/runtime/jail"
)

//go:embed hello.wat
var helloText string

// runLimit bounds the whole run.
const runLimit = 45 * time.Minute

func main() {
	if len(os.Args) > 1 && os.Args[1] == "helper" {
		os.Exit(jail.Main(os.Args[2:], compile.Work))
	}
	jsonFile := flag.String("json", "", "also write each row to this file, as JSON lines")
	quick := flag.Bool("quick", false, "short rounds: to see that it works, not for figures")
	serve := flag.Bool("serve", false, "be the server of the HTTP rows (started by the command itself)")
	wait := flag.String("wait", "", "be the server of the wait rows, with this backend (started by the command itself)")
	fair := flag.String("fair", "", "be the server of the fair rows, with its log in this folder (started by the command itself)")
	hold := flag.Bool("hold", false, "be the process of the rows of waiting invocations (started by the command itself)")
	density := flag.Bool("density", false, "be the process of the density rows (started by the command itself)")
	kvServer := flag.Bool("kv", false, "be the server of the kv rows (started by the command itself)")
	copies := flag.String("replica", "", "be the process that reads the copy in this folder (started by the command itself)")
	rows := flag.String("rows", "", "only rows whose names begin so, for example http/h1 (for figures run all: they are made side by side)")
	profile := flag.String("profile", "", "write a processor profile of the server of the HTTP rows to this file")
	selvage := flag.String("selvage", "bin/selvage", "the executable of the rows that replace and kill servers")
	servers := flag.String("servers", "", "instead: the servers of others beside a whole node, found in PATH and in this folder that npm installed into")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	ctx, cancel := context.WithTimeout(ctx, runLimit)
	var err error
	switch {
	case *serve:
		err = runServer(ctx, *profile)
	case *hold:
		err = runHold(ctx)
	case *kvServer:
		err = runKVServer(ctx, os.Stdin)
	case *copies != "":
		err = runCopy(ctx, *copies)
	case *density:
		err = runDensity(ctx)
	case *wait != "":
		err = runWaitServer(ctx, *wait)
	case *fair != "":
		err = runFairServer(ctx, *fair)
	default:
		err = run(ctx, *jsonFile, *profile, *rows, *selvage, *servers, *quick)
	}
	cancel()
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "peers:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, jsonFile, profile, only, selvage, servers string, quick bool) error {
	var names []string                                   // all
	if servers != "" || strings.HasPrefix(only, "kv/") { // those rows have guests of their own
		names = []string{helloGuest}
	}
	all, err := buildGuests(ctx, names...)
	if err != nil {
		return err
	}
	s := full
	if quick {
		s = short
	}
	fmt.Printf("%s, %d processors, %s\n\n", runtime.Version(), runtime.NumCPU(), time.Now().UTC().Format(time.DateOnly))
	parts := []part{
		{[]string{"start/"}, func() ([]row, error) { return startRows(ctx, s, all) }},
		{[]string{"scale/"}, func() ([]row, error) { return scaleRows(ctx, s, all) }},
		{[]string{"http/"}, func() ([]row, error) { return httpRows(ctx, s, all, profile, only) }},
		{[]string{"leak/"}, func() ([]row, error) { return leakRows(ctx, s.leak, all) }},
		{[]string{"wait/5000"}, func() ([]row, error) { return waitRows(ctx) }},
		{[]string{"wait/10000"}, func() ([]row, error) { return holdRows(ctx) }},
		{[]string{"fair/"}, func() ([]row, error) { return fairRows(ctx, s, only) }},
		{[]string{"upgrade/", "crash/"}, func() ([]row, error) { return upgradeRows(ctx, s, selvage, only, all[helloGuest].module) }},
		{[]string{"geo/"}, func() ([]row, error) { return geoRows(ctx, s, only) }},
		{[]string{"kv/"}, func() ([]row, error) { return kvRows(ctx, s, selvage, only) }},
		{[]string{"start/5000-functions", "crossings/", "density/"}, func() ([]row, error) { return densityRows(ctx, all) }},
	}
	if servers != "" {
		parts = []part{{[]string{"peers/"}, func() ([]row, error) { return serverRows(ctx, s, selvage, servers, all[helloGuest].module) }}}
	}
	var rows []row
	for _, part := range parts {
		if !slices.ContainsFunc(part.names, func(name string) bool { return wanted(only, name) }) {
			continue
		}
		began := time.Now()
		more, failed := part.rows() // the others are measured whatever became of it
		rows, err = append(rows, more...), errors.Join(err, failed)
		fmt.Fprintf(os.Stderr, "%s: %d rows in %.0f s\n", strings.Join(part.names, ", "), len(more), time.Since(began).Seconds())
		table(os.Stderr, more) // a long run is worth its parts, should it be stopped
	}
	table(os.Stdout, rows)
	if jsonFile != "" {
		err = errors.Join(err, writeJSON(jsonFile, rows))
	}
	return err
}

// part makes the rows whose names begin so.
type part struct {
	names []string
	rows  func() ([]row, error)
}

// wanted reports whether rows of this name, or beginning so, were asked for.
func wanted(only, name string) bool {
	return strings.HasPrefix(only, name) || strings.HasPrefix(name, only)
}

// size is how long the measuring goes on.
type size struct {
	rounds int // of each side, in turn
	starts int // instances in a round
	load   time.Duration
	leak   int // requests of the leak row

	upgrade int // requests over each protocol while a node is upgraded
	kills   int // of a node's server
	writes  int // whose way to every PoP is timed
}

var (
	full  = size{rounds: 9, starts: 5000, load: 1500 * time.Millisecond, leak: leakMany, upgrade: 20_000, kills: 5, writes: 300}
	short = size{rounds: 3, starts: 200, load: 200 * time.Millisecond, leak: 4 * leakFew, upgrade: 1000, kills: 2, writes: 20}
)
