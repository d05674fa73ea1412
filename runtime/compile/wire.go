package compile

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/selvage-edge/selvage/runtime/function"
)

// What helpers are given and give back: a mark, then fields, each with its length (8 bytes,
// little-endian) before it. The helper has worked on hostile bytes and may be
// theirs by now, so what it says is read as such.
const (
	compiledMark = "SVC1" // fingerprint, artifact
	prepareMark  = "SVI1" // whether to take a snapshot, module: what a helper is given
	preparedMark = "SVP1" // report as JSON, code, image, started (1 byte)
)

// maxReport bounds the JSON of a report.
const maxReport = 1 << 20

var errOutput = errors.New("the helper's output is malformed")

func encode(mark string, fields ...[]byte) []byte {
	size := len(mark)
	for _, f := range fields {
		size += 8 + len(f)
	}
	b := append(make([]byte, 0, size), mark...)
	for _, f := range fields {
		b = binary.LittleEndian.AppendUint64(b, uint64(len(f)))
		b = append(b, f...)
	}
	return b
}

// decode returns exactly n fields, which are parts of b.
func decode(mark string, b []byte, n int) ([][]byte, error) {
	b, ok := bytes.CutPrefix(b, []byte(mark))
	if !ok {
		return nil, errOutput
	}
	fields := make([][]byte, n)
	for i := range fields {
		if len(b) < 8 {
			return nil, errOutput
		}
		size := binary.LittleEndian.Uint64(b)
		if size > uint64(len(b)-8) {
			return nil, errOutput
		}
		fields[i], b = b[8:8+size:8+size], b[8+size:]
	}
	if len(b) != 0 {
		return nil, errOutput
	}
	return fields, nil
}

func encodeCompiled(fingerprint string, artifact []byte) []byte {
	return encode(compiledMark, []byte(fingerprint), artifact)
}

func decodeCompiled(b []byte) (fingerprint string, artifact []byte, err error) {
	f, err := decode(compiledMark, b, 2)
	if err != nil {
		return "", nil, err
	}
	return string(f[0]), f[1], nil
}

func decodePrepare(b []byte) (mode function.Snapshot, module []byte, err error) {
	f, err := decode(prepareMark, b, 2)
	if err != nil {
		return "", nil, err
	}
	return function.Snapshot(f[0]), f[1], nil
}

func (p *Prepared) encode() []byte {
	report, err := json.Marshal(p.Report)
	if err != nil {
		panic(err) // strings and numbers only
	}
	started := []byte{0}
	if p.Started {
		started[0] = 1
	}
	return encode(preparedMark, report, p.Code, p.Image, started)
}

func decodePrepared(b []byte) (Prepared, error) {
	f, err := decode(preparedMark, b, 4)
	if err != nil {
		return Prepared{}, err
	}
	if len(f[0]) > maxReport || len(f[3]) != 1 || f[3][0] > 1 {
		return Prepared{}, errOutput
	}
	p := Prepared{Code: f[1], Image: f[2], Started: f[3][0] == 1}
	if err := json.Unmarshal(f[0], &p.Report); err != nil {
		return Prepared{}, fmt.Errorf("%w: %v", errOutput, err)
	}
	return p, nil
}
