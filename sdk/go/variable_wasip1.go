package edge

// variables are the function's, read at the first use; generation says when.
var (
	variables          map[string]string
	variablesOfRequest uint32
)

func lookupVar(name string) (string, bool) {
	if generation == 0 {
		panic("edge: Var(" + name + ") was called at start-up: variables belong to requests, read them in the handler")
	}
	if variablesOfRequest != generation {
		variables, variablesOfRequest = readVariables(), generation
	}
	value, ok := variables[name]
	return value, ok
}

func readVariables() map[string]string {
	s, err := gather(hostEnvironment)
	if err != nil {
		die("reading the variables: " + err.Error())
	}
	d := decoder{s: s}
	m := map[string]string{}
	d.pairs(func(name, value string) { m[name] = value })
	if d.err != nil {
		die("reading the variables: " + d.err.Error())
	}
	return m
}
