package main

import (
	"fmt"
	"io"

	"github.com/selvage-edge/selvage/control/logs"
	"github.com/selvage-edge/selvage/edge/guard"
	"github.com/selvage-edge/selvage/edge/invoke"
	"github.com/selvage-edge/selvage/edge/listen"
	"github.com/selvage-edge/selvage/edge/telemetry"
)

// writeDoor writes the bounds that no manifest changes.
func writeDoor(w io.Writer) {
	fmt.Fprint(w, "| what | bound | beyond it |\n|---|---|---|\n")
	for _, row := range [][3]string{
		{"URL: path and query", kib(guard.MaxURLBytes), "414 `url-too-long`"},
		{"request head", kib(guard.MaxHeadBytes), "431 `head-too-large`"},
		{"header fields of a request", fmt.Sprint(guard.MaxHeadLines), "431 `head-lines`"},
		{"reading a head (HTTP/1.1)", listen.HeadTimeout.String(), "408 `slow-head`; silence, if nothing came"},
		{"waiting for a request's body, until the answer begins", fmt.Sprintf("%v, earned back at %s a second", invoke.BodyGrace, kib(invoke.BodyRate)), "408 `body-slow`"},
		{"a connection without requests", listen.IdleTimeout.String(), "closed; GOAWAY"},
		{"a connection whose requests never become complete (HTTP/3)", (listen.IdleTimeout + listen.HeadTimeout).String(), "closed: H3_REQUEST_INCOMPLETE"},
		{"TLS handshake", listen.HandshakeTimeout.String(), "closed: `handshakes_failed_total`"},
		{"TLS handshakes at once", fmt.Sprint(listen.MaxHandshakes), "closed: `handshakes_failed_total`"},
		{"requests at once on a connection (HTTP/2, HTTP/3)", fmt.Sprint(listen.MaxStreams), "REFUSED_STREAM; no credit for streams"},
		{"requests of a connection that are cancelled, or break the protocol", fmt.Sprintf("%d in %v", listen.CalmResets, listen.CalmWindow),
			"GOAWAY with ENHANCE_YOUR_CALM, or H3_EXCESSIVE_LOAD: `connections_calmed_total`"},
		{"connections of the node", "`limits.connections`", "closed unread: `connections_refused_node_total`"},
		{"connections of a client", "`limits.connections_per_client`", "closed unread: `connections_refused_client_total`"},
	} {
		fmt.Fprintf(w, "| %s | %s | %s |\n", row[0], row[1], row[2])
	}
}

// writeFollowing writes the bounds of who follows logs.
func writeFollowing(w io.Writer) {
	fmt.Fprint(w, "| what | bound | beyond it |\n|---|---|---|\n")
	logs.WriteLimits(w)
	fmt.Fprintf(w, "| a line that a node sends | %s | the node is not heard; asked again 2 s later |\n", kib(telemetry.MaxLineBytes))
}

func kib(n int) string { return fmt.Sprintf("%d KiB", n>>10) }
