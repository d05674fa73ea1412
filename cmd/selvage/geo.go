package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/selvage-edge/selvage/cmd/selvage/nameserver"
	"github.com/selvage-edge/selvage/cmd/selvage/term"
	"github.com/selvage-edge/selvage/control/geodns"
)

func geoCommand(o *options) *cobra.Command {
	c := &cobra.Command{Use: "geo", Short: "which PoP a client is sent to, and why"}
	c.RunE = onlySubcommands
	var client, host, admin string
	e := &cobra.Command{
		Use:   "explain",
		Short: "say what DNS answers a client: which PoP, why, and what comes next",
		Long: `Asks a name server what it answers a client with that address: where it takes the
client to be, the records, where the functions of the host may run, if not
anywhere, and the PoPs in the order they come in, each with its distance, state,
weight and load; after them those that are nearer and may not run the functions.
It asks the admin port of a node with dns.listen, or of 'selvage dns'; run it on
that machine.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if _, err := netip.ParseAddr(client); err != nil {
				return usagef("--client %q: want an IP address", client)
			}
			if host == "" {
				return usagef("--host: want the name that the client asks for")
			}
			got, err := explain(c.Context(), admin, client, host)
			if err != nil {
				return err
			}
			return o.out().Result(got, func(w io.Writer) { printExplanation(w, got) })
		},
	}
	e.Flags().StringVar(&client, "client", "", "the client's IP address")
	e.Flags().StringVar(&host, "host", "", "the name it asks for")
	e.Flags().StringVar(&admin, "admin", "127.0.0.1:9090", "admin port of the name server (its listen.admin)")
	c.AddCommand(e)
	return c
}

func explain(ctx context.Context, admin, client, host string) (e geodns.Explanation, err error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	u := url.URL{Scheme: "http", Host: admin, Path: nameserver.ExplainPath, RawQuery: url.Values{"client": {client}, "host": {host}}.Encode()}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return e, usagef("--admin %q: want host:port", admin)
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return e, fmt.Errorf("%w: name a name server's admin port with --admin", err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return e, err
	}
	if resp.StatusCode != http.StatusOK {
		return e, fmt.Errorf("%s: %s", admin, term.Plain(strings.TrimSpace(string(body))))
	}
	return e, json.Unmarshal(body, &e)
}

func printExplanation(w io.Writer, e geodns.Explanation) {
	fmt.Fprintf(w, "%s asks for %s: %s\n", e.Client, term.Plain(e.Host), term.Plain(e.Why))
	p := e.Place
	place := strings.Join(strings.Fields(p.City+" "+p.Region+" "+p.Country), " ")
	if p.Located {
		place = strings.TrimSpace(fmt.Sprintf("%s %.2f, %.2f", place, p.Latitude, p.Longitude))
	}
	if place == "" {
		place = "not known"
	} else if p.Assumed {
		place += " (assumed)"
	}
	fmt.Fprintf(w, "  place   %s\n", term.Plain(place))
	for _, a := range e.Answers {
		fmt.Fprintf(w, "  answer  %s\n", term.Plain(a))
	}
	if e.Placement != "" {
		fmt.Fprintf(w, "  placed  %s\n", term.Plain(e.Placement))
	}
	for i, r := range e.PoPs {
		km := "at an unknown distance"
		if r.Km >= 0 {
			km = fmt.Sprintf("%.0f km", r.Km)
		}
		fmt.Fprintf(w, "  %d. %-8s %s, %s, weight %g, load %.0f %%: %s\n", i+1, term.Plain(r.PoP), km, r.State, r.Weight, r.Load*100, r.Why)
	}
}
