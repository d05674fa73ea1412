package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	edge "github.com/selvage-edge/selvage/sdk/go"
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

// fetchTrickle passes on each line of many answers as it comes.
func fetchTrickle(w http.ResponseWriter, r *http.Request) {
	var group sync.WaitGroup
	var mu sync.Mutex
	for i, u := range r.URL.Query()["url"] {
		group.Go(func() {
			resp, err := http.Get(u)
			if err != nil {
				panic(err)
			}
			defer resp.Body.Close()
			for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
				mu.Lock()
				fmt.Fprintln(w, i, lines.Text())
				w.(http.Flusher).Flush()
				mu.Unlock()
			}
		})
	}
	group.Wait()
}

// fetchAside sends the request's body on while it answers with a line, again and
// again until all is sent; the last is what the backend says.
func fetchAside(w http.ResponseWriter, r *http.Request) {
	sent := make(chan string)
	go func() {
		out, _ := http.NewRequestWithContext(r.Context(), "PUT", r.URL.Query().Get("url"), r.Body)
		resp, err := edge.Fetch(out)
		if err != nil {
			sent <- err.Error()
			return
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		sent <- fmt.Sprint(string(body), err)
	}()
	for {
		select {
		case last := <-sent:
			fmt.Fprintln(w, last)
			return
		default:
			fmt.Fprintln(w, "under way")
			w.(http.Flusher).Flush()
		}
	}
}

// kvMany gets twenty keys at once, one that is not there and one that is never answered.
func kvMany(w http.ResponseWriter, r *http.Request) {
	var group sync.WaitGroup
	total, missing, late := 0, false, false
	for i := range 20 {
		group.Go(func() {
			value, err := store.Get(r.Context(), fmt.Sprint("meet", i))
			if err != nil {
				panic(err)
			}
			total += len(value)
		})
	}
	group.Go(func() {
		_, err := store.Get(r.Context(), "missing")
		missing = errors.Is(err, edge.ErrNotFound)
	})
	group.Go(func() {
		ctx, cancel := context.WithTimeout(r.Context(), 30*time.Millisecond)
		defer cancel()
		_, err := store.Get(ctx, "never")
		late = errors.Is(err, context.DeadlineExceeded)
	})
	group.Wait()
	fmt.Fprint(w, total, " ", missing, " ", late)
}
