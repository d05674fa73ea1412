package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/selvage-edge/selvage/cmd/selvage/template"
)

func initCommand(o *options) *cobra.Command {
	var sdk, name string
	c := &cobra.Command{
		Use:   "init DIR",
		Short: "make a function to begin with",
		Long: `Makes DIR with a small Go function in it: main.go, go.mod, selvage.toml. It
builds as it is: 'selvage build DIR', or 'selvage deploy --wait DIR'.`,
		Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			if name == "" {
				abs, err := filepath.Abs(args[0])
				if err != nil {
					return err
				}
				name = filepath.Base(abs)
			}
			return runInit(o, args[0], name, sdk)
		},
	}
	c.Flags().StringVar(&name, "name", "", "the function's name (default: the folder's)")
	c.Flags().StringVar(&sdk, "sdk", "", "folder of the Go SDK to build against (default: $SELVAGE_SDK, or sdk/go of the checkout this program is in)")
	return c
}

func runInit(o *options, dir, name, sdk string) error {
	for _, named := range []string{sdk, os.Getenv("SELVAGE_SDK")} {
		if _, err := os.Stat(filepath.Join(named, "go.mod")); named != "" && err != nil {
			return usagef("the Go SDK is not at %s: %w", named, err)
		}
	}
	local := findSDK(sdk)
	if local == "" {
		return usagef("the Go SDK is not published as a module yet: name its folder (sdk/go of the source tree) with --sdk or $SELVAGE_SDK")
	}
	files, err := template.Write(dir, name, local)
	if errors.Is(err, template.ErrExists) || errors.Is(err, template.ErrName) {
		return usageError{err}
	}
	if err != nil {
		return err
	}
	v := struct {
		Name  string   `json:"name"`
		Dir   string   `json:"dir"`
		Files []string `json:"files"`
	}{name, dir, files}
	return o.out().Result(v, func(w io.Writer) {
		for _, f := range files {
			fmt.Fprintln(w, "wrote", f)
		}
		fmt.Fprintf(w, "\nnext: selvage deploy --wait %s\n", dir)
	})
}

// findSDK returns the folder of a local SDK, or "" to use the published module.
func findSDK(flag string) string {
	candidates := []string{flag, os.Getenv("SELVAGE_SDK")}
	if exe, err := os.Executable(); err == nil {
		if exe, err = filepath.EvalSymlinks(exe); err == nil {
			candidates = append(candidates, filepath.Join(filepath.Dir(exe), "..", "sdk", "go"))
		}
	}
	for _, dir := range candidates {
		if dir == "" {
			continue
		}
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			if abs, err := filepath.Abs(dir); err == nil {
				return abs
			}
		}
	}
	return ""
}
