package main

import (
	"github.com/spf13/pflag"

	"github.com/selvage-edge/selvage/cmd/selvage/client"
)

// project is the --project flag of commands on one project's things.
type project struct{ project string }

func (p *project) flag(f *pflag.FlagSet) {
	f.StringVar(&p.project, "project", "", "the project (default: the target's)")
}

// with runs do with a client of the target's fleet and the project.
func (p *project) with(o *options, do func(c *client.Client, project string) error) error {
	t, err := o.find()
	if err != nil {
		return err
	}
	c, err := dialAPI(t)
	if err != nil {
		return err
	}
	defer c.Close()
	if p.project != "" {
		t.Project = p.project
	}
	return do(c, t.Project)
}
