// Package store owns the durable truth: blobs by digest, the catalog's log, KV,
// control's own records and the audit trail, all in JetStream.
//
// # What is promised
//
// A write that returned without an error is on disk (every write is fsynced
// before it is acknowledged) and outlives a crash. A write that failed with
// ErrUnavailable may or may not be there. Revisions are stream sequences: they
// grow by every write to the same kind of thing and never come twice within an
// epoch. The epoch is made with the store and replaced by NewEpoch after a restore.
//
// # How it is laid out
//
// One stream each for KV ("kv.<project>.<namespace>.<key>"), the catalog, the
// records and the audit trail, and one object store for blobs. Keys are base64url
// in subjects (subject.go), so a key cannot leave its namespace. KV keeps the
// last value per subject. Values are one message each, up to 25 MiB: the
// embedded server's payload limit is raised for that (an outside cluster needs
// max_payload: 28MB, and Open says so), because one message is what makes a conditional write, an
// expiry and a compaction atomic; chunks would need each of them again.
// A deletion is a tombstone and an expiry a marker; both are kept for
// TombstoneLife so that who follows the log learns of them.
//
// The keys, not the values, are held in memory (index.go), fed by one consumer
// per stream: listings and change streams read them there.
package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/selvage-edge/selvage/runtime/hostcall"
)

// Config says where the truth is kept.
type Config struct {
	// Dir is the embedded server's folder; one process at a time uses it.
	// Required without URL; with it, only the free space of Dir, if set, is watched.
	Dir string
	// URL names an outside JetStream cluster (nats://...) instead of the embedded
	// server. It must sync always and allow payloads of 28 MB.
	URL string
	// Replicas of each stream on an outside cluster: 1, 3 or 5. Default 3 with URL, 1 without.
	Replicas int
	// MaxBytes bounds what the embedded server stores. Default: 75 % of Dir's volume.
	MaxBytes int64
	// Reserve is how much of Dir's volume stays free: below it writes fail with
	// ErrFull. Default: 2 GiB or 10 % of the volume, whichever is less.
	Reserve int64
	// TombstoneLife is how long deletions and expiries stay visible to followers.
	// Default 7 days; who was away for longer starts again.
	TombstoneLife time.Duration
	// Log takes the embedded server's warnings. Default: none.
	Log *slog.Logger
	// Now is the clock that expiry is read on. Default time.Now.
	Now func() time.Time

	patience time.Duration // how long a blob's next bytes are waited for; default answerTimeout
}

// Validate reports every fault of the configuration.
func (c *Config) Validate() error {
	var faults []error
	if (c.Dir == "") == (c.URL == "") && c.Dir == "" {
		faults = append(faults, errors.New("store: neither dir nor url is set: name a folder for the embedded store"))
	}
	switch c.Replicas {
	case 0, 1, 3, 5:
	default:
		faults = append(faults, fmt.Errorf("store: replicas = %d: want 1, 3 or 5", c.Replicas))
	}
	if c.URL == "" && c.Replicas > 1 {
		faults = append(faults, fmt.Errorf("store: replicas = %d on the embedded server, which is one: set url to use a cluster", c.Replicas))
	}
	if c.MaxBytes < 0 || c.Reserve < 0 {
		faults = append(faults, fmt.Errorf("store: max_bytes = %d, reserve = %d: want 0 (default) or more", c.MaxBytes, c.Reserve))
	}
	if c.TombstoneLife != 0 && c.TombstoneLife < time.Second {
		faults = append(faults, fmt.Errorf("store: tombstone_life = %v: want at least 1s", c.TombstoneLife))
	}
	return errors.Join(faults...)
}

// What a store may answer besides hostcall's errors (ErrNotFound, ErrConflict, ErrTooLarge, ErrInvalid, ErrUnavailable).
var (
	// ErrFull says that the volume or the store's bound is reached: nothing was written.
	ErrFull = errors.New("store: the disk is full up to its reserve: free space on the store's volume, or raise store.max_bytes")
	// ErrCorrupt says that stored bytes are not the ones that were written.
	ErrCorrupt = errors.New("store: stored bytes do not match their digest: restore them from a backup")
	// ErrGone says that a position is too old to be continued: deletions after it were forgotten.
	ErrGone = errors.New("store: the position is older than what is remembered: start again")
	// ErrAhead says that a position is above the log: the store's disk went back in time.
	ErrAhead = errors.New("store: the position is above the head of the log: the store was rolled back, give it a new epoch ('selvage control new-epoch')")
)

// answerTimeout bounds the wait for the store where the caller's context does not.
const answerTimeout = 30 * time.Second

// maxPayload holds the largest value, its headers and subject.
const maxPayload = hostcall.MaxValueBytes + 1<<20

// Store is the durable truth. Safe for concurrent use.
type Store struct {
	cfg   Config
	lock  *os.File
	srv   *server.Server // nil with an outside cluster
	nc    *nats.Conn
	js    jetstream.JetStream
	disk  disk
	epoch epoch
	past  past
	blobs jetstream.ObjectStore
	turns turns

	catalog *table
	kv      *table
	records *table
	audit   *audit
	closed  sync.Once
}

// Open opens the store, making it if it is new, and reads its keys. Close it.
func Open(ctx context.Context, cfg Config) (_ *Store, err error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	s := &Store{cfg: cfg}
	s.defaults()
	defer func() {
		if err != nil {
			s.Close()
		}
	}()
	if err := s.connect(); err != nil {
		return nil, err
	}
	// A slow disk is waited for: an answer in time is the caller's concern.
	if s.js, err = jetstream.New(s.nc, jetstream.WithDefaultTimeout(answerTimeout)); err != nil {
		return nil, fmt.Errorf("store: open jetstream: %w", err)
	}
	if err := s.openStreams(ctx); err != nil {
		return nil, err
	}
	if err := s.epoch.open(ctx, s); err != nil {
		return nil, err
	}
	if err := s.openPast(ctx); err != nil {
		return nil, err
	}
	return s, nil
}

func (s *Store) defaults() {
	if s.cfg.Replicas == 0 {
		s.cfg.Replicas = 1
		if s.cfg.URL != "" {
			s.cfg.Replicas = 3
		}
	}
	if s.cfg.TombstoneLife == 0 {
		s.cfg.TombstoneLife = 7 * 24 * time.Hour
	}
	if s.cfg.Log == nil {
		s.cfg.Log = slog.New(slog.DiscardHandler)
	}
	if s.cfg.Now == nil {
		s.cfg.Now = time.Now
	}
	if s.cfg.patience == 0 {
		s.cfg.patience = answerTimeout
	}
}

func (s *Store) connect() (err error) {
	if s.cfg.Dir != "" {
		if err := s.openDir(); err != nil {
			return err
		}
	}
	if s.cfg.URL != "" {
		s.nc, err = nats.Connect(s.cfg.URL, nats.Name("selvage"), nats.MaxReconnects(-1))
	} else {
		if err := s.startServer(); err != nil {
			return err
		}
		s.nc, err = nats.Connect("", nats.InProcessServer(s.srv), nats.Name("selvage"), nats.MaxReconnects(-1))
	}
	if err != nil {
		return fmt.Errorf("store: connect: %w", err)
	}
	if most := s.nc.MaxPayload(); most < maxPayload {
		return fmt.Errorf("store: %s takes payloads of %d bytes: set max_payload to %d or more there", s.cfg.URL, most, maxPayload)
	}
	return nil
}

// openDir makes the folder, takes its lock and sizes its volume.
func (s *Store) openDir() error {
	if err := os.MkdirAll(s.cfg.Dir, 0o700); err != nil {
		return fmt.Errorf("store: make %s: %w", s.cfg.Dir, err)
	}
	var err error
	name := filepath.Join(s.cfg.Dir, "lock")
	if s.lock, err = os.OpenFile(name, os.O_CREATE|os.O_RDWR, 0o600); err != nil {
		return fmt.Errorf("store: open lock: %w", err)
	}
	if err := syscall.Flock(int(s.lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return fmt.Errorf("store: %s is in use by another process: stop that one first: %w", s.cfg.Dir, err)
	}
	s.disk = disk{dir: s.cfg.Dir, reserve: s.cfg.Reserve}
	return s.disk.measure(&s.cfg.MaxBytes)
}

func (s *Store) startServer() error {
	srv, err := server.NewServer(&server.Options{
		ServerName:             "selvage-store",
		DontListen:             true,
		JetStream:              true,
		StoreDir:               s.cfg.Dir,
		SyncAlways:             true,
		JetStreamMaxStore:      s.cfg.MaxBytes,
		JetStreamMaxMemory:     64 << 20,
		MaxPayload:             maxPayload,
		NoSigs:                 true,
		NoSystemAccount:        true,
		DisableJetStreamBanner: true,
	})
	if err != nil {
		return fmt.Errorf("store: make the embedded server: %w", err)
	}
	s.srv = srv
	srv.SetLogger(serverLog{s.cfg.Log}, false, false)
	srv.Start()
	if !srv.ReadyForConnections(30 * time.Second) {
		return fmt.Errorf("store: the embedded server in %s did not start within 30 s: see its warnings in the log", s.cfg.Dir)
	}
	s.disk.most = s.cfg.MaxBytes
	s.disk.used = func() int64 { return int64(srv.GlobalAccount().JetStreamUsage().Store) }
	return nil
}

// Close ends everything the store started; calling it again does nothing. Writes
// under way fail with ErrUnavailable or are there.
func (s *Store) Close() (err error) {
	s.closed.Do(func() { err = s.close() })
	return err
}

func (s *Store) close() error {
	for _, t := range []*table{s.catalog, s.kv, s.records} {
		if t != nil {
			t.close()
		}
	}
	if s.nc != nil {
		s.nc.Close()
	}
	if s.srv != nil {
		s.srv.Shutdown()
		s.srv.WaitForShutdown()
	}
	if s.lock != nil {
		return s.lock.Close()
	}
	return nil
}

// Health fails when writes would: the server does not answer, or the disk is full.
func (s *Store) Health(ctx context.Context) error {
	if err := errors.Join(s.disk.room(0), s.past.refusal()); err != nil {
		return err
	}
	if _, err := s.js.AccountInfo(ctx); err != nil {
		return fmt.Errorf("store: %w: %w", hostcall.ErrUnavailable, err)
	}
	return nil
}

func (s *Store) openStreams(ctx context.Context) (err error) {
	if err := s.openBlobs(ctx); err != nil {
		return err
	}
	base := jetstream.StreamConfig{
		Storage: jetstream.FileStorage, Replicas: s.cfg.Replicas, Retention: jetstream.LimitsPolicy,
		MaxConsumers: -1, MaxMsgs: -1, MaxBytes: -1, Discard: jetstream.DiscardOld, DenyDelete: true,
		// With one replica the direct answer is the leader's; with more it may be a follower's, and old.
		AllowDirect: s.cfg.Replicas == 1,
	}
	last := base
	last.MaxMsgsPerSubject = 1
	last.AllowMsgTTL, last.SubjectDeleteMarkerTTL, last.AllowRollup = true, s.cfg.TombstoneLife, true

	kv, records, catalog, trail := last, last, base, base
	kv.Name, kv.Subjects = "KV", []string{"kv.>"}
	records.Name, records.Subjects = "RECORDS", []string{"record.>"}
	catalog.Name, catalog.Subjects, catalog.MaxMsgsPerSubject, catalog.DenyPurge = "CATALOG", []string{"catalog.>"}, catalogHistory, true
	trail.Name, trail.Subjects, trail.DenyPurge = "AUDIT", []string{"audit.>"}, true

	if s.kv, err = s.openTable(ctx, "kv", kv); err != nil {
		return err
	}
	if s.records, err = s.openTable(ctx, "record", records); err != nil {
		return err
	}
	if s.catalog, err = s.openTable(ctx, "catalog", catalog); err != nil {
		return err
	}
	s.audit, err = s.openAudit(ctx, trail)
	return err
}

// serverLog passes on what the embedded server warns of.
type serverLog struct{ log *slog.Logger }

func (l serverLog) Noticef(format string, v ...any) {}
func (l serverLog) Debugf(format string, v ...any)  {}
func (l serverLog) Tracef(format string, v ...any)  {}
func (l serverLog) Warnf(format string, v ...any) {
	if strings.HasPrefix(format, "Maximum payloads over") {
		return // decided; see the package's text
	}
	l.log.Warn("store server", "message", fmt.Sprintf(format, v...))
}
func (l serverLog) Errorf(format string, v ...any) {
	l.log.Error("store server", "message", fmt.Sprintf(format, v...))
}
func (l serverLog) Fatalf(format string, v ...any) {
	l.log.Error("store server", "message", fmt.Sprintf(format, v...))
}
