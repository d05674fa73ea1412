//go:build !wasip1

package edge

import "os"

func lookupVar(name string) (string, bool) { return os.LookupEnv(name) }
