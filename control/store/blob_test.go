package store

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/selvage-edge/selvage/runtime/function"
	"github.com/selvage-edge/selvage/runtime/hostcall"
)

func TestBlobs(t *testing.T) {
	s := open(t)
	ctx := t.Context()
	for _, size := range []int{0, 1, blobChunk, 3*blobChunk + 7} {
		b := make([]byte, size)
		rand.NewChaCha8([32]byte{byte(size)}).Read(b)
		d, err := s.PutBlobBytes(ctx, b)
		if err != nil {
			t.Fatal(err)
		}
		if again, err := s.PutBlobBytes(ctx, b); err != nil || again != d {
			t.Fatalf("stored again: %s, %v", again, err)
		}
		got, err := s.BlobBytes(ctx, d, int64(size))
		if err != nil || !bytes.Equal(got, b) {
			t.Fatalf("%d bytes: got %d, %v", size, len(got), err)
		}
		if size > 0 {
			if _, err := s.BlobBytes(ctx, d, int64(size-1)); !errors.Is(err, hostcall.ErrTooLarge) {
				t.Fatalf("over the limit: %v", err)
			}
		}
	}
	none := function.DigestOf([]byte("none"))
	if _, _, err := s.Blob(ctx, none); !errors.Is(err, hostcall.ErrNotFound) {
		t.Fatalf("no such blob: %v", err)
	}
	if _, _, err := s.Blob(ctx, "../x"); !errors.Is(err, hostcall.ErrInvalid) {
		t.Fatalf("not a digest: %v", err)
	}
}

func TestBlobIsVerifiedOnTheWayIn(t *testing.T) {
	s := open(t)
	d := function.DigestOf([]byte("said"))
	if err := s.PutBlob(t.Context(), d, bytes.NewReader([]byte("sent")), 4); !errors.Is(err, ErrCorrupt) {
		t.Fatalf("other bytes than said: %v", err)
	}
	if has, err := s.HasBlob(t.Context(), d); has || err != nil {
		t.Fatalf("stored all the same: %v, %v", has, err)
	}
}

func TestBlobIsVerifiedOnTheWayOut(t *testing.T) {
	s := open(t)
	d := function.DigestOf([]byte("written"))
	// What a flipped bit on the disk would be: other bytes under the name.
	if _, err := s.blobs.PutBytes(t.Context(), string(d), []byte("wr1tten")); err != nil {
		t.Fatal(err)
	}
	if _, err := s.BlobBytes(t.Context(), d, 100); !errors.Is(err, ErrCorrupt) {
		t.Fatalf("bytes: %v", err)
	}
	r, _, err := s.Blob(t.Context(), d)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if _, err := io.Copy(io.Discard, r); !errors.Is(err, ErrCorrupt) {
		t.Fatalf("stream: %v", err)
	}
}

// What a crash in the middle of an upload leaves is gone after the next start; whole blobs are not.
func TestBrokenOffUploadsAreSwept(t *testing.T) {
	s := open(t)
	ctx := t.Context()
	d, err := s.PutBlobBytes(ctx, make([]byte, 3*blobChunk))
	if err != nil {
		t.Fatal(err)
	}
	const orphan = "$O." + blobBucket + ".C.brokenoff"
	if _, err := s.js.Publish(ctx, orphan, []byte("a piece")); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	again, err := Open(ctx, s.cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	stream, err := again.js.Stream(ctx, "OBJ_"+blobBucket)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stream.GetLastMsgForSubject(ctx, orphan); !errors.Is(err, jetstream.ErrMsgNotFound) {
		t.Errorf("the piece is there still: %v", err)
	}
	if b, err := again.BlobBytes(ctx, d, 1<<30); err != nil || len(b) != 3*blobChunk {
		t.Errorf("the whole blob: %d bytes, %v", len(b), err)
	}
}

func TestEveryConsumerHasMaxDeliver(t *testing.T) {
	s := open(t)
	seen := 0
	for stream := range s.js.ListStreams(t.Context()).Info() {
		st, err := s.js.Stream(t.Context(), stream.Config.Name)
		if err != nil {
			t.Fatal(err)
		}
		for c := range st.ListConsumers(t.Context()).Info() {
			seen++
			if c.Config.MaxDeliver <= 0 && c.Config.AckPolicy != jetstream.AckNonePolicy {
				t.Errorf("%s of %s delivers without end: %+v", c.Name, c.Stream, c.Config)
			}
		}
	}
	if seen < 3 {
		t.Errorf("saw %d consumers, want the three feeds", seen)
	}
}

// Reading a blob may take longer than its bytes are waited for, as long as some come.
func TestBlobIsReadSlowly(t *testing.T) {
	const patience = time.Second
	s := open(t, func(c *Config) { c.patience = patience })
	d, err := s.PutBlobBytes(t.Context(), bytes.Repeat([]byte("0123456789abcdef"), 5*blobChunk/16))
	if err != nil {
		t.Fatal(err)
	}
	r, size, err := s.Blob(t.Context(), d)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	begin, got := time.Now(), int64(0)
	for {
		n, err := io.CopyN(io.Discard, r, size/5)
		if got += n; errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatalf("after %d of %d bytes and %v: %v", got, size, time.Since(begin), err)
		}
		time.Sleep(patience / 2)
	}
	if got != size || time.Since(begin) < 2*patience {
		t.Errorf("%d of %d bytes in %v", got, size, time.Since(begin))
	}
}
