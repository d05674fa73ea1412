package store

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/selvage-edge/selvage/runtime/function"
	"github.com/selvage-edge/selvage/runtime/hostcall"
)

const blobBucket = "blobs"

// blobChunk is the size of a stored piece: each is one fsync.
const blobChunk = 512 << 10

func (s *Store) openBlobs(ctx context.Context) (err error) {
	s.blobs, err = s.js.CreateOrUpdateObjectStore(ctx, jetstream.ObjectStoreConfig{
		Bucket: blobBucket, Description: "bundles, code and images by digest",
		Storage: jetstream.FileStorage, Replicas: s.cfg.Replicas, MaxBytes: -1,
	})
	if err == nil && s.srv != nil {
		err = s.sweepBlobs(ctx)
	}
	if err != nil {
		return fmt.Errorf("store: open blobs: %w", err)
	}
	return nil
}

// sweepBlobs removes the pieces of blobs that a crash broke off. Only the
// embedded server's one user can know that nobody is writing them.
func (s *Store) sweepBlobs(ctx context.Context) error {
	stream, err := s.js.Stream(ctx, "OBJ_"+blobBucket)
	if err != nil {
		return err
	}
	const pieces = "$O." + blobBucket + ".C."
	info, err := stream.Info(ctx, jetstream.WithSubjectFilter(pieces+">"))
	if err != nil || len(info.State.Subjects) == 0 {
		return err
	}
	whole, err := s.blobs.List(ctx)
	if err != nil && !errors.Is(err, jetstream.ErrNoObjectsFound) {
		return err
	}
	for _, o := range whole {
		delete(info.State.Subjects, pieces+o.NUID)
	}
	for subj := range info.State.Subjects {
		if err := stream.Purge(ctx, jetstream.WithPurgeSubject(subj)); err != nil {
			return err
		}
	}
	return nil
}

// PutBlob stores what r gives under its digest; ErrCorrupt, and nothing stored,
// if it is not d's. size is what the disk must have room for. Storing what is there already does nothing.
func (s *Store) PutBlob(ctx context.Context, d function.Digest, r io.Reader, size int64) error {
	if _, err := function.ParseDigest(string(d)); err != nil {
		return fmt.Errorf("store: put blob: %w: %w", hostcall.ErrInvalid, err)
	}
	has, err := s.HasBlob(ctx, d)
	if err != nil || has {
		return err
	}
	if err := s.disk.room(size); err != nil {
		return err
	}
	_, err = s.blobs.Put(ctx, jetstream.ObjectMeta{
		Name: string(d), Opts: &jetstream.ObjectMetaOptions{ChunkSize: blobChunk},
	}, &checked{r: r, want: d, sum: sha256.New()})
	if errors.Is(err, ErrCorrupt) {
		return fmt.Errorf("store: put blob %s: %w", d.Short(), err)
	}
	if err != nil {
		return publishFailed("put blob "+d.Short(), err)
	}
	return nil
}

// PutBlobBytes stores b under its digest and returns that.
func (s *Store) PutBlobBytes(ctx context.Context, b []byte) (function.Digest, error) {
	d := function.DigestOf(b)
	return d, s.PutBlob(ctx, d, bytes.NewReader(b), int64(len(b)))
}

// HasBlob reports whether the blob is stored.
func (s *Store) HasBlob(ctx context.Context, d function.Digest) (bool, error) {
	_, err := s.blobs.GetInfo(ctx, string(d))
	if errors.Is(err, jetstream.ErrObjectNotFound) {
		return false, nil
	}
	if err != nil {
		return false, readFailed("look for blob "+d.Short(), err)
	}
	return true, nil
}

// Blob returns a stored blob and its size. Its Read fails with ErrCorrupt
// instead of io.EOF if the bytes are not the digest's. Close it.
func (s *Store) Blob(ctx context.Context, d function.Digest) (io.ReadCloser, int64, error) {
	if _, err := function.ParseDigest(string(d)); err != nil {
		return nil, 0, fmt.Errorf("store: blob: %w: %w", hostcall.ErrInvalid, err)
	}
	ctx, cancel := context.WithCancel(ctx)
	moving := &moving{Context: ctx, most: s.cfg.patience, end: time.AfterFunc(s.cfg.patience, cancel)}
	obj, err := s.blobs.Get(moving, string(d))
	if errors.Is(err, jetstream.ErrObjectNotFound) {
		cancel()
		return nil, 0, fmt.Errorf("store: blob %s: %w", d.Short(), hostcall.ErrNotFound)
	}
	if err != nil {
		cancel()
		return nil, 0, readFailed("blob "+d.Short(), err)
	}
	info, err := obj.Info()
	if err != nil {
		cancel()
		obj.Close()
		return nil, 0, readFailed("blob "+d.Short(), err)
	}
	return &blobReader{checked{r: obj, want: d, sum: sha256.New()}, obj, moving, cancel}, int64(info.Size), nil
}

// moving is the context of one reading, which ends when nothing came for a while, not
// at a time: who reads over a slow line reads long. The client asks for the deadline at each
// read, and waits for it rather than for the end; so it lies a little behind that.
type moving struct {
	context.Context
	most time.Duration
	end  *time.Timer
}

func (m *moving) Deadline() (time.Time, bool) {
	m.end.Reset(m.most)
	return time.Now().Add(m.most + m.most/8 + time.Second), true
}

// blobReader reads a stored blob.
type blobReader struct {
	checked
	obj    io.Closer
	moving *moving
	cancel context.CancelFunc
}

func (b *blobReader) Read(p []byte) (int, error) {
	n, err := b.checked.Read(p)
	b.moving.end.Stop() // how long the reader takes is its own concern
	if err != nil && !errors.Is(err, io.EOF) && b.moving.Err() != nil {
		err = fmt.Errorf("store: nothing more of the blob came within %v: %w", b.moving.most, ErrCorrupt)
	}
	return n, err
}

func (b *blobReader) Close() error {
	b.moving.end.Stop()
	b.cancel()
	return b.obj.Close()
}

// BlobBytes returns a stored blob of at most limit bytes, verified.
func (s *Store) BlobBytes(ctx context.Context, d function.Digest, limit int64) ([]byte, error) {
	r, size, err := s.Blob(ctx, d)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	if size > limit {
		return nil, fmt.Errorf("store: blob %s of %d bytes, over %d: %w", d.Short(), size, limit, hostcall.ErrTooLarge)
	}
	b, err := io.ReadAll(r)
	if err != nil {
		return nil, fmt.Errorf("store: blob %s: %w", d.Short(), err)
	}
	return b, nil
}

// checked is r, with ErrCorrupt in place of io.EOF if what passed was not want's.
type checked struct {
	r    io.Reader
	want function.Digest
	sum  hash.Hash
}

func (c *checked) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.sum.Write(p[:n])
	if errors.Is(err, io.EOF) && hex.EncodeToString(c.sum.Sum(nil)) != c.want.Hex() {
		err = ErrCorrupt
	}
	return n, err
}
