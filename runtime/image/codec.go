package image

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/klauspost/compress/zstd"
)

// The format: "SVIM", a version byte, the plain length as a uvarint, and one
// zstd frame of that length. In it, all numbers uvarints: the size in pages; the
// number of globals and for each its index, type (a byte) and bits (8 bytes,
// little-endian); the number of runs and for each the distance from the end of
// the one before and its length; then the bytes of all runs.
const (
	formatMagic   = "SVIM"
	formatVersion = 1
	maxHeader     = 16 << 20 // of what stands before the runs' bytes
	maxGlobals    = 1 << 16
)

// Encode returns the image in its own versioned format.
func (m *Image) Encode() []byte {
	var plain []byte
	plain = binary.AppendUvarint(plain, m.Size/PageSize)
	plain = binary.AppendUvarint(plain, uint64(len(m.Globals)))
	for _, g := range m.Globals {
		plain = append(binary.AppendUvarint(plain, uint64(g.Index)), g.Type)
		plain = binary.LittleEndian.AppendUint64(plain, g.Bits)
	}
	plain = binary.AppendUvarint(plain, uint64(len(m.Runs)))
	var end uint64
	for _, r := range m.Runs {
		plain = binary.AppendUvarint(plain, r.Offset-end)
		plain = binary.AppendUvarint(plain, uint64(len(r.Data)))
		end = r.Offset + uint64(len(r.Data))
	}
	for _, r := range m.Runs {
		plain = append(plain, r.Data...)
	}
	out := append([]byte(formatMagic), formatVersion)
	out = binary.AppendUvarint(out, uint64(len(plain)))
	return encoder().EncodeAll(plain, out)
}

// encoder is single-threaded so that the same image gives the same bytes.
func encoder() *zstd.Encoder {
	e, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithEncoderCRC(true), zstd.WithSingleSegment(true), zstd.WithEncoderLevel(zstd.SpeedDefault))
	if err != nil {
		panic(err) // the options are constants
	}
	return e
}

// Decode reads what Encode wrote, refusing an image larger than maxBytes. It
// allocates no more than about that, whatever the input says.
func Decode(b []byte, maxBytes uint64) (*Image, error) {
	m, err := decode(b, min(maxBytes, MaxSize))
	if err != nil {
		return nil, fmt.Errorf("decode image: %w", err)
	}
	return m, nil
}

func decode(b []byte, maxBytes uint64) (*Image, error) {
	if len(b) < len(formatMagic)+1 || string(b[:len(formatMagic)]) != formatMagic {
		return nil, errors.New("not an image")
	}
	if v := b[len(formatMagic)]; v != formatVersion {
		return nil, fmt.Errorf("format version %d; this build reads %d", v, formatVersion)
	}
	b = b[len(formatMagic)+1:]
	length, n := binary.Uvarint(b)
	if n <= 0 || length > maxBytes+maxHeader {
		return nil, fmt.Errorf("larger than the %d bytes allowed", maxBytes)
	}
	plain, err := decompress(b[n:], length)
	if err != nil {
		return nil, err
	}
	m, err := decodePlain(plain, maxBytes)
	if err != nil {
		return nil, err
	}
	return m, m.Validate()
}

func decompress(b []byte, length uint64) ([]byte, error) {
	var h zstd.Header
	if err := h.Decode(b); err != nil {
		return nil, err
	}
	if !h.HasFCS || h.FrameContentSize != length {
		return nil, errors.New("the compressed length is not the one announced")
	}
	d, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(max(length, 64<<10)), zstd.WithDecoderLowmem(true))
	if err != nil {
		return nil, err
	}
	defer d.Close()
	plain, err := d.DecodeAll(b, nil)
	if err == nil && uint64(len(plain)) != length {
		err = errors.New("the compressed length is not the one announced")
	}
	return plain, err
}

// plainReader reads uvarints and bytes; a fault makes everything zero.
type plainReader struct {
	b   []byte
	bad bool
}

func (r *plainReader) number(most uint64) uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 || v > most {
		r.bad, r.b = true, nil
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *plainReader) take(n uint64) []byte {
	if n > uint64(len(r.b)) {
		r.bad, r.b = true, nil
		return make([]byte, min(n, 8))
	}
	p := r.b[:n:n]
	r.b = r.b[n:]
	return p
}

func decodePlain(b []byte, maxBytes uint64) (*Image, error) {
	r := &plainReader{b: b}
	m := &Image{Size: r.number(maxBytes/PageSize) * PageSize}
	for n := r.number(maxGlobals); n > 0 && !r.bad; n-- {
		g := Global{Index: uint32(r.number(1<<32 - 1)), Type: r.take(1)[0]}
		g.Bits = binary.LittleEndian.Uint64(r.take(8))
		m.Globals = append(m.Globals, g)
	}
	if n := r.number(min(maxRuns, uint64(len(r.b))/2)); n > 0 {
		m.Runs = make([]Run, n)
	}
	lengths := make([]uint64, len(m.Runs))
	var end uint64
	for i := range m.Runs {
		m.Runs[i].Offset = end + r.number(m.Size-end)
		lengths[i] = r.number(m.Size - m.Runs[i].Offset)
		end = m.Runs[i].Offset + lengths[i]
	}
	for i := range m.Runs {
		m.Runs[i].Data = r.take(lengths[i])
	}
	if r.bad || len(r.b) != 0 {
		return nil, errors.New("malformed, or larger than allowed")
	}
	return m, nil
}
