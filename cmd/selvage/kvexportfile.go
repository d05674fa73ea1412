package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/selvage-edge/selvage/control/api"
	"github.com/selvage-edge/selvage/control/identity"
)

// exportNote is beside an export's file until that is whole: what it is of.
type exportNote struct {
	Namespace string `json:"namespace"` // project/name
	Prefix    []byte `json:"prefix,omitempty"`
	After     []byte `json:"after,omitempty"` // it began after this key
	Epoch     uint64 `json:"epoch,omitempty"`
	AsOf      uint64 `json:"as_of,omitempty"` // the least of its pages; 0: not known
	Begun     bool   `json:"begun,omitempty"` // there was a page
}

// notePath is where the note is; "" for none.
func (x *export) notePath() string {
	if x.name == "-" {
		return ""
	}
	return x.name + ".note"
}

func (x *export) keepNote() error {
	if x.notePath() == "" {
		return nil
	}
	b, err := json.Marshal(x.note)
	if err != nil {
		return err
	}
	return identity.WriteFile(x.notePath(), append(b, '\n'))
}

// open makes the file and its note, or opens those of before.
func (x *export) open(resume bool) (err error) {
	x.note = exportNote{Namespace: x.project + "/" + x.ns, Prefix: []byte(x.prefix), After: x.after}
	x.file = os.Stdout
	if x.name != "-" {
		x.file, err = x.openFile(resume)
	}
	x.out = bufio.NewWriterSize(x.file, 1<<20)
	return err
}

func (x *export) openFile(resume bool) (*os.File, error) {
	flags := os.O_RDWR | os.O_CREATE
	if !resume {
		flags |= os.O_EXCL
	}
	f, err := os.OpenFile(x.name, flags, 0o600)
	if errors.Is(err, fs.ErrExist) {
		err = usagef("%s is there already: --resume goes on with it; or name another", x.name)
	}
	if err != nil {
		return nil, err
	}
	if resume {
		err = x.goOn(f)
	} else {
		err = x.keepNote()
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// goOn sets the export to after f's last whole line, if f is of the same export.
func (x *export) goOn(f *os.File) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	err = x.readNote()
	if info.Size() == 0 && errors.Is(err, fs.ErrNotExist) { // nothing of it is there yet
		return x.keepNote()
	}
	if errors.Is(err, fs.ErrNotExist) {
		return usagef("--resume: %s has no note beside it (%s): it is whole, or no export wrote it; name another file", x.name, x.notePath())
	}
	if err != nil {
		return err
	}
	last, end, err := lastLine(f)
	if err == nil {
		err = f.Truncate(end)
	}
	if err == nil {
		_, err = f.Seek(end, io.SeekStart)
	}
	if err != nil {
		return fmt.Errorf("go on with %s: %w", x.name, err)
	}
	if x.after = x.note.After; last != "" {
		x.after = []byte(last)
	}
	return nil
}

// readNote takes the note of before, if it is of this export.
func (x *export) readNote() error {
	b, err := os.ReadFile(x.notePath())
	if err != nil {
		return err
	}
	var was exportNote
	if err := json.Unmarshal(b, &was); err != nil || was.Namespace == "" {
		return usagef("--resume: %s is no note of an export; name another file", x.notePath())
	}
	if was.Namespace != x.note.Namespace || string(was.Prefix) != x.prefix {
		return usagef("--resume: %s is an export of %s with prefix %q, not of %s with prefix %q; name another file", x.name, was.Namespace, was.Prefix, x.note.Namespace, x.prefix)
	}
	x.note = was
	return nil
}

// errAnew: an export cannot go on.
var errAnew = errors.New("the store began anew")

// reflects notes what a page reflects, before a line of it is written.
func (x *export) reflects(page api.KeyList) error {
	was := x.note
	if was.Begun && was.Epoch != page.Epoch {
		return fmt.Errorf("%w (epoch %d, before it was %d), and its revisions with it: begin the export anew, in another file", errAnew, page.Epoch, was.Epoch)
	}
	if x.note.AsOf = min(was.AsOf, page.AsOf); !was.Begun && len(was.After) == 0 {
		x.note.AsOf = page.AsOf
	}
	x.note.Begun, x.note.Epoch = true, page.Epoch
	x.sum.AsOf, x.sum.Epoch = x.note.AsOf, x.note.Epoch
	if was.Begun && was.AsOf == x.note.AsOf {
		return nil
	}
	return x.keepNote()
}

// close has what was written stay; of an export that is whole no note is needed.
func (x *export) close(whole bool) error {
	if x.name == "-" {
		return nil
	}
	if err := errors.Join(x.file.Sync(), x.file.Close()); err != nil || !whole {
		return err
	}
	return os.Remove(x.notePath())
}
