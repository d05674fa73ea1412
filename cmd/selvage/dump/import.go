package dump

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"sync"

	"golang.org/x/sync/semaphore"
)

// ErrOver is Put's answer to a line whose time is over: it is counted, and no failure.
var ErrOver = errors.New("its time is over")

// Config says what is imported, and where to.
type Config struct {
	In io.Reader
	// Put writes a line, durably, and may be called from many goroutines, but with the lines of one
	// key in their order, one after the other. Nil: lines are only checked.
	Put func(ctx context.Context, l Line) error
	// From is the first line to be written; those before are passed over, unchecked.
	From int64
	// After is where an import of before came to; the lines up to there have to be the same ones.
	After Mark
	// Reached is told, now and then and at the end, up to where everything is done. May be nil.
	Reached func(Mark) error
}

// Bounds of an import.
const (
	writers   = 16       // lines written at once
	heldBytes = 64 << 20 // of lines read and not written; a longer one is alone
	markEvery = 256      // lines between two calls of Reached
)

// Summary counts an import's lines.
type Summary struct {
	Written int64 `json:"written"`
	Over    int64 `json:"expired"` // not written: their time was over
	Bytes   int64 `json:"bytes"`   // of values written
	Done    Mark  `json:"done"`    // every line up to here is done
}

// LineError is why a line was not taken. Nothing of it was applied.
type LineError struct {
	Line int64
	Err  error
}

func (e *LineError) Error() string { return fmt.Sprintf("line %d: %v", e.Line, e.Err) }
func (e *LineError) Unwrap() error { return e.Err }

// Import writes the input's lines, and stops at one that is bad, once those before it are done, or that
// cannot be written: both are a *LineError. The summary says where to go on; lines after that may be written too.
func Import(outer context.Context, c Config) (Summary, error) {
	ctx, stop := context.WithCancel(outer)
	defer stop()
	run := &importing{c: c, stop: stop, held: semaphore.NewWeighted(heldBytes), seed: maphash.MakeSeed()}
	r := NewReader(c.In)
	if err := r.Skip(c.After); err != nil {
		return run.mu.sum, err
	}
	run.mu.sum.Done, run.mu.saved = c.After, c.After.Line
	var wait sync.WaitGroup
	for i := range run.lanes {
		run.lanes[i] = make(chan job, 16)
		wait.Go(func() { run.write(ctx, outer, run.lanes[i]) })
	}
	err := run.read(ctx, r)
	for _, lane := range run.lanes {
		close(lane)
	}
	wait.Wait()
	return run.end(err)
}

// importing is an import under way.
type importing struct {
	c     Config
	stop  func() // reading; what was read is written
	held  *semaphore.Weighted
	seed  maphash.Seed
	lanes [writers]chan job
	mu    struct {
		sync.Mutex
		sum     Summary
		pending []*step // in the input's order
		saved   int64   // the line that Reached was told last
		err     error   // of the lowest line that failed, or Reached's
	}
}

// step is a line that was read, and whether it is done.
type step struct {
	mark Mark
	done bool
}

type job struct {
	line   Line
	weight int64
	step   *step
}

func (m *importing) read(ctx context.Context, r *Reader) error {
	for ctx.Err() == nil {
		raw, _, err := r.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if r.At().Line < m.c.From {
			continue
		}
		l, err := Parse(raw)
		if err != nil {
			return &LineError{r.At().Line, err}
		}
		j := job{line: l, weight: min(int64(len(raw)), heldBytes), step: &step{mark: r.At()}}
		if m.held.Acquire(ctx, j.weight) != nil {
			break
		}
		m.mu.Lock()
		m.mu.pending = append(m.mu.pending, j.step)
		m.mu.Unlock()
		m.lanes[maphash.String(m.seed, l.Key)%writers] <- j
	}
	return ctx.Err()
}

// write does the lines of one lane, until outer ends. Those that wait when another has failed, and ctx ends, are left.
func (m *importing) write(ctx, outer context.Context, lane <-chan job) {
	for j := range lane {
		if ctx.Err() == nil {
			var err error
			if m.c.Put != nil {
				err = m.c.Put(outer, j.line)
			}
			m.finish(j, err)
		}
		m.held.Release(j.weight)
	}
}

func (m *importing) finish(j job, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case errors.Is(err, ErrOver):
		m.mu.sum.Over++
	case err != nil:
		m.failed(&LineError{j.step.mark.Line, err})
		return
	default:
		m.mu.sum.Written++
		m.mu.sum.Bytes += int64(len(j.line.Value))
	}
	j.step.done = true
	for len(m.mu.pending) > 0 && m.mu.pending[0].done {
		m.mu.sum.Done = m.mu.pending[0].mark
		m.mu.pending = m.mu.pending[1:]
	}
	if m.mu.sum.Done.Line-m.mu.saved >= markEvery {
		m.reached()
	}
}

// failed notes a failure and stops reading; the lock is held.
func (m *importing) failed(err error) {
	var old, now *LineError
	if m.mu.err == nil || errors.As(m.mu.err, &old) && errors.As(err, &now) && now.Line < old.Line {
		m.mu.err = err
	}
	m.stop()
}

// reached tells where everything is done; the lock is held.
func (m *importing) reached() {
	m.mu.saved = m.mu.sum.Done.Line
	if m.c.Reached == nil {
		return
	}
	if err := m.c.Reached(m.mu.sum.Done); err != nil {
		m.failed(err)
	}
}

// end says how it ended: why a line was not written goes before why no more were read.
func (m *importing) end(read error) (Summary, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.mu.sum.Done.Line > m.mu.saved {
		m.reached()
	}
	if m.mu.err != nil {
		return m.mu.sum, m.mu.err
	}
	return m.mu.sum, read
}
