package engine

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/selvage-edge/selvage/runtime/image"
)

// Snapshot returns memory and globals after Done. It refuses what it cannot
// capture exactly; what only the code tells (a start-up that may have changed a
// table or dropped a segment) image.CheckSnapshot refuses.
func (i *Instance) Snapshot() (*image.Image, error) {
	if i.last != Done || i.closed || i.in.Ended() {
		return nil, errors.New("snapshot: the start-up has not ended, or its memory is gone")
	}
	for _, im := range i.program.code.imports {
		if im.Kind != FuncExtern {
			return nil, fmt.Errorf("snapshot: the code imports %s.%s, which is not a function", im.Module, im.Name)
		}
	}
	if i.in.FDsChanged() {
		return nil, errors.New("snapshot: start-up closed or renumbered a descriptor, or gave up rights on one, which an image does not hold")
	}
	globals, err := i.globals()
	if err != nil {
		return nil, err
	}
	memory := i.in.Memory()
	return &image.Image{Size: uint64(len(memory)), Runs: runs(memory), Globals: globals}, nil
}

func (i *Instance) globals() ([]image.Global, error) {
	var list []image.Global
	for _, e := range i.program.code.exports {
		digits, ok := strings.CutPrefix(e.Name, image.GlobalPrefix)
		if !ok || e.Kind != GlobalExtern {
			continue
		}
		index, err := strconv.ParseUint(digits, 10, 32)
		if err != nil {
			return nil, fmt.Errorf("snapshot: export %q: %w", e.Name, err)
		}
		kind, bits, ok := i.in.Global(e.Name)
		if !ok {
			return nil, fmt.Errorf("snapshot: global %d holds a reference or vector, which an image cannot", index)
		}
		list = append(list, image.Global{Index: uint32(index), Type: kind, Bits: bits})
	}
	return list, nil
}

// runs copies what is not zero, page by page, joining neighbours.
func runs(memory []byte) []image.Run {
	const page = 4096
	var list []image.Run
	var zero [page]byte
	for at := 0; at < len(memory); at += page {
		p := memory[at : at+page]
		if bytes.Equal(p, zero[:]) {
			continue
		}
		if n := len(list) - 1; n >= 0 && list[n].Offset+uint64(len(list[n].Data)) == uint64(at) {
			list[n].Data = append(list[n].Data, p...)
			continue
		}
		list = append(list, image.Run{Offset: uint64(at), Data: append([]byte(nil), p...)})
	}
	return list
}
