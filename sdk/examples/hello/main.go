// Command hello answers with a line of text, and at /json with what the edge
// knows about the request.
package main

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"

	edge "github.com/selvage-edge/selvage/sdk/go"
)

func main() {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", text)
	mux.HandleFunc("GET /json", document)
	edge.Serve(mux)
}

func text(w http.ResponseWriter, r *http.Request) {
	greeting := edge.Var("GREETING")
	if greeting == "" {
		greeting = "hello"
	}
	fmt.Fprintf(w, "%s from %s\n", greeting, edge.Info(r.Context()).PoP)
}

// answer is the document at /json.
type answer struct {
	Message   string `json:"message"`
	PoP       string `json:"pop"`
	Region    string `json:"region"`
	RequestID string `json:"request_id"`
	Client    string `json:"client"`
	Protocol  string `json:"protocol"`
	Version   string `json:"version"`
}

func document(w http.ResponseWriter, r *http.Request) {
	info := edge.Info(r.Context())
	slog.Info("json asked for", "pop", info.PoP)
	w.Header().Set("Content-Type", "application/json")
	err := json.NewEncoder(w).Encode(answer{
		Message:   "hello",
		PoP:       info.PoP,
		Region:    info.Region,
		RequestID: info.RequestID,
		Client:    info.Client.String(),
		Protocol:  r.Proto,
		Version:   info.Version,
	})
	if err != nil {
		slog.Error("json", "error", err)
	}
}
