// Package api is the control node's HTTP API: the only way in for a change.
//
// Handler serves /v1 for developers, operators and joining nodes: JSON over
// HTTPS, bearer tokens, an OpenAPI document at /v1/openapi.json that is made
// from the same table as the routes. PeerHandler serves /peer/v1 for nodes, over mTLS.
//
// Every route stands in the tables of routes.go and node.go with its scope, its body's
// limit and whether it changes anything; serve.go does for all of them what is the same for
// all: the token and its scope, the limit, Idempotency-Key, and the audit trail.
// Errors are problem documents (RFC 9457) that say what to do next.
package api
