package fleet

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/selvage-edge/selvage/runtime/atomicfile"
)

// maxKeptFile bounds the file of members, in bytes: MaxMembers, each as large as one can be.
const maxKeptFile = 4 << 20

// keptFile is who a node's last server knew.
type keptFile struct {
	Version int          `json:"version"`
	Members []keptMember `json:"members"`
}

type keptMember struct {
	Name string `json:"name"`
	Meta []byte `json:"meta"` // as Meta.Encode has it
}

// EncodeMembers is what LoadMembers reads of a file: names and what those members said of
// themselves, their load left out, which is not worth a write.
func EncodeMembers(members []Member) ([]byte, error) {
	f := keptFile{Version: 1, Members: []keptMember{}}
	for _, m := range members {
		m.Meta.Site.Load = 0
		meta, err := m.Meta.Encode()
		if err != nil {
			return nil, fmt.Errorf("member %s: %w", m.Name, err)
		}
		f.Members = append(f.Members, keptMember{m.Name, meta})
	}
	return json.Marshal(f)
}

// SaveMembers replaces the file whole by what EncodeMembers made.
func SaveMembers(path string, encoded []byte) error {
	f, err := atomicfile.Create(filepath.Dir(path))
	if err != nil {
		return fmt.Errorf("save members: %w", err)
	}
	defer f.Discard()
	if _, err := f.Write(encoded); err != nil {
		return fmt.Errorf("save members: %w", err)
	}
	if err := f.Commit(filepath.Base(path)); err != nil {
		return fmt.Errorf("save members: %w", err)
	}
	return nil
}

// LoadMembers reads who was alive when the file was written, as hints: of each only Name,
// Meta and Health (Alive) are set. Without a file there is nobody.
func LoadMembers(path string) ([]Member, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read members: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxKeptFile+1))
	if err != nil {
		return nil, fmt.Errorf("read members: %w", err)
	}
	members, err := decodeMembers(b)
	if err != nil {
		return nil, fmt.Errorf("read members %s: %w", path, err)
	}
	return members, nil
}

// decodeMembers accepts the whole file or nothing of it.
func decodeMembers(b []byte) ([]Member, error) {
	if len(b) > maxKeptFile {
		return nil, fmt.Errorf("more than %d bytes", maxKeptFile)
	}
	var f keptFile
	if err := json.Unmarshal(b, &f); err != nil {
		return nil, err
	}
	if f.Version != 1 || len(f.Members) > MaxMembers {
		return nil, fmt.Errorf("version %d with %d members: want version 1 and at most %d", f.Version, len(f.Members), MaxMembers)
	}
	var all []Member
	for _, k := range f.Members {
		if err := ValidName(k.Name); err != nil {
			return nil, err
		}
		meta, err := DecodeMeta(k.Meta)
		if err != nil {
			return nil, fmt.Errorf("member %s: %w", k.Name, err)
		}
		all = append(all, Member{Name: k.Name, Meta: meta, Health: Alive})
	}
	return all, nil
}
