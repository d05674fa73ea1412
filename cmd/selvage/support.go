package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/selvage-edge/selvage/cmd/selvage/client"
	"github.com/selvage-edge/selvage/cmd/selvage/config"
	"github.com/selvage-edge/selvage/cmd/selvage/support"
	"github.com/selvage-edge/selvage/cmd/selvage/target"
	"github.com/selvage-edge/selvage/control/logs"
	"github.com/selvage-edge/selvage/edge/telemetry"
)

// logTail is how much of each log file goes into a support bundle.
const logTail = 1 << 20

type supportFlags struct {
	out           string
	configs, logs []string
	functionLogs  bool
}

func supportCommand(o *options) *cobra.Command {
	c := &cobra.Command{Use: "support", Short: "what is needed to understand trouble from afar"}
	c.RunE = onlySubcommands
	var f supportFlags
	b := &cobra.Command{
		Use:   "bundle",
		Short: "pack versions, configuration, status, metrics and recent logs, without secrets",
		Long: `Packs what is needed to understand trouble from afar into a tar.gz: versions, what
'selvage doctor' finds, configuration files (--config), the metrics of their nodes,
the fleet's status and audit trail, access records of the last half hour, and the
ends of log files (--log). Tokens, keys, passwords and the values of functions'
variables are taken out; what functions logged is left out, but for --function-logs.
Look through it before it leaves the house all the same.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return runSupport(c.Context(), o, &f) },
	}
	fl := b.Flags()
	fl.StringVarP(&f.out, "output", "o", "", "where it goes (default selvage-support-DATE.tar.gz here)")
	fl.StringSliceVar(&f.configs, "config", nil, "a node's configuration file; may be given more than once")
	fl.StringSliceVar(&f.logs, "log", nil, "a log file, of which the end is taken; may be given more than once")
	fl.BoolVar(&f.functionLogs, "function-logs", false, "also what functions logged: they may say what nobody else should read")
	c.AddCommand(b)
	return c
}

func runSupport(ctx context.Context, o *options, f *supportFlags) error {
	now := time.Now().UTC()
	if f.out == "" {
		f.out = "selvage-support-" + now.Format("20060102-150405") + ".tar.gz"
	}
	file, err := os.OpenFile(f.out, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	b := support.New(file, now)
	gather(ctx, o, f, b)
	if err := errors.Join(b.Close(), file.Close()); err != nil {
		return err
	}
	res := struct {
		File    string   `json:"file"`
		Lacking []string `json:"lacking"`
	}{f.out, strings.FieldsFunc(b.Lacking(), func(r rune) bool { return r == '\n' })}
	return o.out().Result(res, func(w io.Writer) {
		fmt.Fprintf(w, "%s: look through it before you send it\n", res.File)
		for _, l := range res.Lacking {
			fmt.Fprintf(w, "  lacking: %s\n", l)
		}
	})
}

// gather puts everything into b. Secrets that are known are told it first.
func gather(ctx context.Context, o *options, f *supportFlags, b *support.Bundle) {
	for _, env := range []string{"SELVAGE_TOKEN", "SELVAGE_JOIN_TOKEN", "SELVAGE_ROOT_PASSPHRASE"} {
		b.Scrub.Know(os.Getenv(env))
	}
	t, targetErr := o.find()
	if targetErr == nil {
		b.Scrub.Know(t.Token)
	}
	b.JSON("versions.json", versions(), nil)
	for i, path := range f.configs {
		b.File(fmt.Sprintf("config/%d-%s", i, filepath.Base(path)), path, logTail)
		found, err := examine(ctx, o, path)
		b.JSON(fmt.Sprintf("doctor/%d.json", i), found, err)
		gatherMetrics(ctx, b, i, path)
	}
	if len(f.configs) == 0 {
		found, err := examine(ctx, o, "")
		b.JSON("doctor.json", found, err)
	}
	for i, path := range f.logs {
		b.File(fmt.Sprintf("log/%d-%s", i, filepath.Base(path)), path, logTail)
	}
	if targetErr != nil {
		b.Lacks("fleet", targetErr)
		return
	}
	b.File("target.toml", t.Path, logTail)
	if err := gatherFleet(ctx, b, t, f.functionLogs); err != nil {
		b.Lacks("fleet", err)
	}
}

func versions() any {
	v := struct {
		Selvage string            `json:"selvage"`
		Go      string            `json:"go"`
		System  string            `json:"system"`
		CPUs    int               `json:"cpus"`
		Build   map[string]string `json:"build"`
		Modules map[string]string `json:"modules"`
	}{version, runtime.Version(), runtime.GOOS + "/" + runtime.GOARCH, runtime.NumCPU(), map[string]string{}, map[string]string{}}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			v.Build[s.Key] = s.Value
		}
		for _, m := range info.Deps {
			v.Modules[m.Path] = m.Version
		}
	}
	return v
}

// gatherMetrics asks the node of a configuration file for what its admin port tells.
func gatherMetrics(ctx context.Context, b *support.Bundle, i int, path string) {
	admin := ""
	if c, err := config.LoadEdge(path); err == nil {
		admin = c.Listen.Admin
	} else if c, err := config.LoadControl(path); err == nil {
		admin = c.Listen.Admin
	}
	if admin == "" {
		return // the doctor's error says it
	}
	for _, page := range []string{"metrics", "healthz", "readyz"} {
		name := fmt.Sprintf("node/%d-%s.txt", i, page)
		text, err := fetchText(ctx, "http://"+admin+"/"+page)
		if err != nil {
			b.Lacks(name, err)
			continue
		}
		b.Text(name, text)
	}
}

func fetchText(ctx context.Context, url string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 16<<20))
	return resp.Status + "\n" + string(text), err
}

// gatherFleet asks the control node.
func gatherFleet(ctx context.Context, b *support.Bundle, t target.Target, functionLogs bool) error {
	c, err := dialAPI(t)
	if err != nil {
		return err
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	fleet, err := c.Fleet(ctx)
	if err != nil {
		return err
	}
	b.JSON("fleet/nodes.json", fleet, nil)
	functions, err := c.Functions(ctx, t.Project)
	b.JSON("fleet/functions.json", functions, err)
	trail, err := c.Audit(ctx, 500)
	b.JSON("fleet/audit.json", trail, err)
	gatherLines(ctx, b, c, functionLogs)
	return nil
}

func gatherLines(ctx context.Context, b *support.Bundle, c *client.Client, functionLogs bool) {
	q := logs.Query{Since: 30 * time.Minute, Tail: 5000, Kind: telemetry.KindAccess}
	if functionLogs {
		q.Kind = ""
	}
	var lines strings.Builder
	err := c.Logs(ctx, "", q, func(_ telemetry.Line, raw []byte) error {
		lines.Write(raw)
		return lines.WriteByte('\n')
	})
	if err != nil {
		b.Lacks("fleet/lines.json", err)
	}
	b.Text("fleet/lines.json", lines.String())
}
