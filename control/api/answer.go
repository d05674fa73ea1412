package api

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/selvage-edge/selvage/runtime/hostcall"
	"github.com/selvage-edge/selvage/runtime/quota"
)

// Answers with large values are in memory from when they are read until the client has taken
// them: a value is one message of the store. A caller's are bounded, so that a token that leaks cannot take
// what others need, and those of all are.
const (
	callerAnswers = 4 // of AnswerBytes, one caller's

	// A value that is read is there several times: in the store's buffers, on its way, and as the answer, or its base64.
	copiesRead = 3
)

// A client has answerPatience, and a second for each answerRate bytes, to take an answer.
const (
	answerPatience = 10 * time.Second
	answerRate     = 256 << 10
)

// Why there is no share.
var (
	errOwnAnswers = problem(http.StatusTooManyRequests, "too-many-answers", "take the answers that are under way, ask for fewer at once, or for smaller ones", "this caller's answers under way have as many bytes as they may")
	errAllAnswers = problem(http.StatusServiceUnavailable, "busy", "try again in a moment", "the answers under way have as many bytes as they may")
)

func newAnswers(bytes int64) *quota.Pool { return quota.New(bytes, max(bytes/callerAnswers, 1)) }

// reserve waits for room for the values of keys, if those are large now.
func (c *call) reserve(ctx context.Context, ns hostcall.Namespace, keys ...string) error {
	size, err := c.a.cfg.Store.KV().SizeOf(ctx, ns, keys...)
	if err != nil || size <= smallBody {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, c.a.cfg.AnswerWait)
	defer cancel()
	switch c.share, err = c.a.answers.Take(ctx, c.actor, copiesRead*min(size, hostcall.MaxReadBytes)); {
	case errors.Is(err, quota.ErrOwn):
		return errOwnAnswers
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
