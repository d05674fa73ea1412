package main

import (
	"github.com/spf13/cobra"

	"github.com/selvage-edge/selvage/cmd/selvage/config"
	"github.com/selvage-edge/selvage/cmd/selvage/nameserver"
)

func dnsCommand(_ *options) *cobra.Command {
	var file string
	c := &cobra.Command{
		Use:   "dns",
		Short: "a name server of its own for the fleet's zones",
		Long: `Answers DNS for the fleet's zones, over UDP and TCP, with the nearest PoPs that
serve. It joins the fleet as nodes do, with a one-time token in $SELVAGE_JOIN_TOKEN
(made by 'selvage join-token'), and follows which PoPs live, drain and are loaded.
A node of a PoP does the same with dns.listen in its own configuration. It is
authoritative only: it resolves nothing for others, and signs nothing (no DNSSEC).`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			cfg, err := config.LoadNameServer(file)
			if err != nil {
				return usageError{err}
			}
			return nameserver.Run(c.Context(), cfg, version)
		},
	}
	c.Flags().StringVar(&file, "config", "dns.toml", "configuration file")
	return c
}
