package identity

import (
	"encoding/pem"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/selvage-edge/selvage/runtime/atomicfile"
)

// maxFileBytes bounds every file this room reads.
const maxFileBytes = 16 << 20

// WriteFile replaces path with data in one step that survives a crash: a
// temporary file beside it (mode 0600), fsync, rename, fsync of the directory.
func WriteFile(path string, data []byte) error {
	if err := writeBeside(path, data); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

func writeBeside(path string, data []byte) error {
	f, err := atomicfile.Create(filepath.Dir(path)) // mode 0600
	if err != nil {
		return err
	}
	defer f.Discard()
	if _, err := f.Write(data); err != nil {
		return err
	}
	return f.Commit(filepath.Base(path))
}

func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return readBounded(f)
}

// readPrivate reads a file that holds a secret; it refuses one that others may read.
func readPrivate(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if m := info.Mode().Perm(); m&0o077 != 0 {
		return nil, fmt.Errorf("%s: mode %04o lets others reach a secret; run chmod 600 %s", path, m, path)
	}
	return readBounded(f)
}

func readBounded(f *os.File) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(f, maxFileBytes+1))
	if err != nil {
		return nil, err
	}
	if len(b) > maxFileBytes {
		return nil, fmt.Errorf("%s: larger than %d bytes", f.Name(), maxFileBytes)
	}
	return b, nil
}

// readPEM returns the blocks of a private file.
func readPEM(path string) ([]*pem.Block, error) {
	b, err := readPrivate(path)
	if err != nil {
		return nil, err
	}
	var blocks []*pem.Block
	for {
		block, rest := pem.Decode(b)
		if block == nil {
			break
		}
		blocks, b = append(blocks, block), rest
	}
	if len(blocks) == 0 {
		return nil, fmt.Errorf("%s: no PEM block in it", path)
	}
	return blocks, nil
}
