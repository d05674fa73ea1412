package main

import (
	"strings"
	"testing"
)

// What is no value of a flag's is told without the names of Go's packages.
func TestFlagErrorsAreForPeople(t *testing.T) {
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"kv", "ls", "n", "--limit", "ten"}, `--limit "ten": want a whole number`},
		{[]string{"kv", "put", "n", "k", "v", "--if-revision", "99999999999999999999"}, "that is not so large"},
		{[]string{"kv", "put", "n", "k", "v", "--ttl", "soon"}, `--ttl "soon": want a duration, such as 90s`},
		{[]string{"kv", "watch", "n", "--epoch", "-1"}, "want a whole number of 0 or more"},
		{[]string{"status", "--json=maybe"}, "want true or false"},
		{[]string{"kv", "delete"}, "NAMESPACE and KEY are missing"},
		{[]string{"kv", "lst"}, "`ls`"},
		{[]string{"kv", "gte", "n", "k"}, "`get`"},
	} {
		root := newRoot(&options{})
		root.SetArgs(c.args)
		err := root.Execute()
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "strconv") || strings.Contains(err.Error(), "time:") {
			t.Errorf("%v: %v, want %s", c.args, err, c.want)
		}
	}
}
