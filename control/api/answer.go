package api

import (
	"context"
	"net/http"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/selvage-edge/selvage/runtime/hostcall"
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

// answers is the room for them.
type answers struct {
	all  *semaphore.Weighted
	most int64 // one token's bytes
	mu   struct {
		sync.Mutex
		tokens map[string]*tokenRoom // of those that have some, or wait for it
	}
}

type tokenRoom struct {
	bytes *semaphore.Weighted
	users int // guarded by answers.mu
}

func newAnswers(bytes int64) *answers {
	a := &answers{all: semaphore.NewWeighted(bytes), most: max(bytes/tokenPart, 1)}
	a.mu.tokens = map[string]*tokenRoom{}
	return a
}

// share is what one answer has of the room; nil has none.
type share struct {
	of     *answers
	token  string
	room   *tokenRoom
	weight int64
}

// Why there is no share.
var (
	errTokenAnswers = problem(http.StatusTooManyRequests, "too-many-answers", "take the answers that are under way, ask for fewer at once, or for smaller ones", "this token's answers under way have as many bytes as they may")
	errAllAnswers   = problem(http.StatusServiceUnavailable, "busy", "try again in a moment", "the answers under way have as many bytes as they may")
)

// reserve waits for room for an answer of so many bytes at most, until ctx is over or
// for so long. Release it.
func (a *answers) reserve(ctx context.Context, token string, weight int64, patience time.Duration) (*share, error) {
	waiting, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	s := &share{of: a, token: token, room: a.enter(token), weight: min(weight, a.most)}
	if s.room.bytes.Acquire(waiting, s.weight) != nil {
		a.leave(token, s.room)
		return nil, errTokenAnswers
	}
	if a.all.Acquire(waiting, s.weight) != nil {
		s.room.bytes.Release(s.weight)
		a.leave(token, s.room)
		return nil, errAllAnswers
	}
	return s, nil
}

func (a *answers) enter(token string) *tokenRoom {
	a.mu.Lock()
	defer a.mu.Unlock()
	r := a.mu.tokens[token]
	if r == nil {
		r = &tokenRoom{bytes: semaphore.NewWeighted(a.most)}
		a.mu.tokens[token] = r
	}
	r.users++
	return r
}

func (a *answers) leave(token string, r *tokenRoom) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if r.users--; r.users == 0 {
		delete(a.mu.tokens, token)
	}
}

// keep gives back what is over n bytes.
func (s *share) keep(n int64) {
	if s == nil || n >= s.weight {
		return
	}
	s.room.bytes.Release(s.weight - n)
	s.of.all.Release(s.weight - n)
	s.weight = n
}

func (s *share) release() {
	if s == nil {
		return
	}
	s.keep(0)
	s.of.leave(s.token, s.room)
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
