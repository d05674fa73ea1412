// Command httpbin serves the public module github.com/mccutchen/go-httpbin
// unchanged: its http.Handler was written for net/http's server.
package main

import (
	"github.com/mccutchen/go-httpbin/v2/httpbin"

	edge "github.com/selvage-edge/selvage/sdk/go"
)

func main() {
	edge.Serve(httpbin.New())
}
