package catalog

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/selvage-edge/selvage/control/identity"
)

// The last known good catalog on disk, integers little-endian:
//
//	"SLVC" 0x01
//	u64 epoch, u64 revision   the position
//	u32 count
//	count x u32 length, record (as signed, in order of revision)
//	32  SHA-256 of all before it
//
// The sum notices a torn or rotten file. What the file says is believed only
// for the signatures of its records.
const (
	fileMagic    = "SLVC\x01"
	fileHead     = len(fileMagic) + 8 + 8 + 4
	maxFileBytes = 512 << 20
)

// ErrDamaged says that a kept catalog is not what Save wrote.
var ErrDamaged = errors.New("catalog: the file is damaged")

// Save writes the snapshot to path in one step.
func (s *Snapshot) Save(path string) error {
	return identity.WriteFile(path, s.encode())
}

// Save writes the present snapshot to path in one step.
func (s *State) Save(path string) error { return s.Snapshot().Save(path) }

func (s *Snapshot) encode() []byte {
	b := []byte(fileMagic)
	b = binary.LittleEndian.AppendUint64(b, s.pos.Epoch)
	b = binary.LittleEndian.AppendUint64(b, s.pos.Revision)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(s.entries)))
	for _, e := range byRevision(s.entries) {
		b = binary.LittleEndian.AppendUint32(b, uint32(len(e.raw)))
		b = append(b, e.raw...)
	}
	return appendSum(b)
}

func appendSum(b []byte) []byte {
	sum := sha256.Sum256(b)
	return append(b, sum[:]...)
}

// Load reads what Save wrote and verifies every record again; a delegation that
// has ended since still counts, a revoked one does not (identity.Trust.VerifyKept). It refuses a file that is older than the
// state (ErrStale). A missing file is fs.ErrNotExist.
func (s *State) Load(path string) error {
	b, err := readFile(path)
	if err != nil {
		return fmt.Errorf("load catalog: %w", err)
	}
	if err := s.load(b); err != nil {
		return fmt.Errorf("load catalog %s: %w", path, err)
	}
	return nil
}

func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxFileBytes+1))
	if err == nil && len(b) > maxFileBytes {
		err = ErrDamaged
	}
	return b, err
}

func (s *State) load(b []byte) error {
	pos, records, err := decodeFile(b)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if held := s.cur.Load().pos; pos.Compare(held) < 0 {
		return fmt.Errorf("%w: %s, held is %s", ErrStale, pos, held)
	}
	if pos.Epoch == 0 && len(records) == 0 {
		return nil // saved before anything was known
	}
	next, err := empty().with(s.trust.VerifyKept, pos, records)
	if err != nil {
		return err
	}
	s.cur.Store(next)
	return nil
}

func decodeFile(b []byte) (pos Position, records [][]byte, err error) {
	if len(b) < fileHead+sha256.Size || string(b[:len(fileMagic)]) != fileMagic {
		return pos, nil, ErrDamaged
	}
	body, sum := b[:len(b)-sha256.Size], b[len(b)-sha256.Size:]
	if got := sha256.Sum256(body); !bytes.Equal(got[:], sum) {
		return pos, nil, ErrDamaged
	}
	rest := body[len(fileMagic):]
	pos.Epoch, rest = binary.LittleEndian.Uint64(rest), rest[8:]
	pos.Revision, rest = binary.LittleEndian.Uint64(rest), rest[8:]
	count, rest := binary.LittleEndian.Uint32(rest), rest[4:]
	for range count {
		if len(rest) < 4 || uint64(len(rest)-4) < uint64(binary.LittleEndian.Uint32(rest)) {
			return pos, nil, ErrDamaged
		}
		n := binary.LittleEndian.Uint32(rest)
		records = append(records, rest[4:4+n:4+n])
		rest = rest[4+n:]
	}
	if len(rest) > 0 {
		return pos, nil, ErrDamaged
	}
	return pos, records, nil
}
