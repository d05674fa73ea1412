package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"
)

// fetchBeside waits for a backend that answers only once another goroutine,
// after a sleep, has sent a second request.
func fetchBeside(w http.ResponseWriter, r *http.Request) {
	go func() {
		time.Sleep(5 * time.Millisecond)
		if resp, err := http.Get(r.URL.Query().Get("url") + "/let-go"); err == nil {
			resp.Body.Close()
		}
	}()
	resp, err := http.Get(r.URL.Query().Get("url") + "/held")
	if err != nil {
		kvFail(w, err)
		return
	}
	defer resp.Body.Close()
	fmt.Fprint(w, resp.StatusCode)
}

// fetchDeadline gives up on a backend that never answers, in two ways, and answers all the same.
func fetchDeadline(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), 30*time.Millisecond)
	defer cancel()
	late, _ := http.NewRequestWithContext(ctx, "GET", r.URL.Query().Get("url"), nil)
	_, err := http.DefaultClient.Do(late)
	fmt.Fprintln(w, errors.Is(err, context.DeadlineExceeded))

	ctx, cancel = context.WithCancel(r.Context())
	time.AfterFunc(30*time.Millisecond, cancel)
	go time.Sleep(time.Second) // a goroutine beside it: or nobody could call cancel
	left, _ := http.NewRequestWithContext(ctx, "GET", r.URL.Query().Get("url"), nil)
	_, err = http.DefaultClient.Do(left)
	fmt.Fprintln(w, errors.Is(err, context.Canceled))

	client := &http.Client{Timeout: 30 * time.Millisecond}
	_, err = client.Get(r.URL.Query().Get("url"))
	var timeout interface{ Timeout() bool }
	fmt.Fprintln(w, errors.As(err, &timeout) && timeout.Timeout())
}

func fetchTrailer(w http.ResponseWriter, r *http.Request) {
	resp, err := http.Get(r.URL.Query().Get("url"))
	if err != nil {
		kvFail(w, err)
		return
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	fmt.Fprint(w, string(body), " ", err, " ", resp.Trailer["X-Sum"], " ", resp.Header["Trailer"])
}
