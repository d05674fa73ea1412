package edge

// Var returns the variable name of [variables] in selvage.toml, or "". Call it
// while a request is handled: at start-up it panics, because start-up is part of
// a snapshot and variables are not. Off the edge it reads the environment.
func Var(name string) string {
	value, _ := lookupVar(name)
	return value
}

// LookupVar is [Var] that tells an empty variable from one that is not set.
func LookupVar(name string) (value string, ok bool) { return lookupVar(name) }
