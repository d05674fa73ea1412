package main

import (
	"errors"
	"fmt"
	"strconv"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// flagError says of a flag's value that is none what is wanted, in place of the name of what could not read it.
func flagError(_ *cobra.Command, err error) error {
	var bad *pflag.InvalidValueError
	if !errors.As(err, &bad) {
		return err
	}
	want := wanted(bad.GetFlag().Value.Type())
	if want == "" {
		return err
	}
	if errors.Is(err, strconv.ErrRange) {
		want += " that is not so large"
	}
	return fmt.Errorf("--%s %q: want %s", bad.GetFlag().Name, bad.GetValue(), want)
}

// wanted is what a value of a flag's type is; "" for types whose own errors say it.
func wanted(kind string) string {
	switch kind {
	case "int", "int64", "int32":
		return "a whole number"
	case "uint", "uint64", "uint32", "uint16":
		return "a whole number of 0 or more"
	case "float64", "float32":
		return "a number"
	case "duration":
		return "a duration, such as 90s, 10m or 24h"
	case "bool":
		return "true or false"
	}
	return ""
}
