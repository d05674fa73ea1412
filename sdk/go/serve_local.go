//go:build !wasip1

package edge

import (
	"context"
	"crypto/rand"
	"errors"
	"log"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// serve runs h on this machine until the process is told to end.
func serve(h http.Handler) {
	runWarmUps()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := serveLocal(ctx, localAddress(), h); err != nil {
		log.Fatalf("edge: %v", err)
	}
	os.Exit(0) // as on the edge, Serve does not return
}

func localAddress() string {
	port := os.Getenv("PORT")
	if port == "" {
		port = "8787"
	}
	return net.JoinHostPort("127.0.0.1", port)
}

// serveLocal serves h on address until ctx ends.
func serveLocal(ctx context.Context, address string, h http.Handler) error {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	log.Printf("edge: serving on http://%s (KV is in memory and starts empty)", l.Addr())
	server := &http.Server{Handler: withLocalInfo(h), ReadHeaderTimeout: 10 * time.Second}
	stopped := make(chan error, 1)
	go func() {
		<-ctx.Done()
		last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		stopped <- server.Shutdown(last)
	}()
	if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return <-stopped
}

// withLocalInfo gives each request metadata that names this machine as its PoP.
func withLocalInfo(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		client, _ := netip.ParseAddrPort(r.RemoteAddr)
		info := &Metadata{PoP: "local", Node: "local", Region: "local", Client: client, RequestID: rand.Text()}
		h.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), infoKey{}, info)))
	})
}
