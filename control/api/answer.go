package api

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/selvage-edge/selvage/runtime/hostcall"
	"github.com/selvage-edge/selvage/runtime/quota"
)

// Answers with values are in memory from when they are read until the client has taken
// them. A token's are bounded, so that one that leaks cannot take what others need, and
// those of all are.
const (
	tokenPart = 4 // of AnswerBytes, one token's

	valueWeight  = hostcall.MaxValueBytes
	valuesWeight = 3 * hostcall.MaxReadBytes // the values, and their base64 in JSON
)

// A client has answerPatience, and a second for each answerRate bytes, to take an answer.
const (
	answerPatience = 10 * time.Second
	answerRate     = 256 << 10
)

// Why there is no share.
var (
	errTokenAnswers = problem(http.StatusTooManyRequests, "too-many-answers", "take the answers that are under way, ask for fewer at once, or for smaller ones", "this token's answers under way have as many bytes as they may")
	errAllAnswers   = problem(http.StatusServiceUnavailable, "busy", "try again in a moment", "the answers under way have as many bytes as they may")
)

func newAnswers(bytes int64) *quota.Pool { return quota.New(bytes, max(bytes/tokenPart, 1)) }

// reserve waits for room for an answer of the route's weight at most.
func (c *call) reserve(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, c.a.cfg.AnswerWait)
	defer cancel()
	var err error
	switch c.share, err = c.a.answers.Take(ctx, c.actor, c.route.weight); {
	case errors.Is(err, quota.ErrOwn):
		return errTokenAnswers
	case err != nil:
		return errAllAnswers
	}
	return nil
}

// deliver writes an answer's body, of which the head is written, within the time there is for it.
func deliver(w http.ResponseWriter, body []byte) {
	rc := http.NewResponseController(w)
	_ = rc.SetWriteDeadline(time.Now().Add(answerPatience + time.Duration(len(body)/answerRate)*time.Second)) // a writer without deadlines does not block
	if _, err := w.Write(body); err != nil {
		return // the connection is over
	}
	if rc.Flush() == nil {
		_ = rc.SetWriteDeadline(time.Time{}) // for the next one on the connection
	}
}
