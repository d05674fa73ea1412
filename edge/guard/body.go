package guard

// body follows the framing of one message body, without changing it.
type body struct {
	state   bodyState
	remains int64 // of the length, or of the chunk's data
	size    int64 // of the chunk, while its size is read
	digits  int
	line    int // bytes of the chunk extension or the trailers so far
}

type bodyState uint8

const (
	bodyDone      bodyState = iota
	bodyLength              // remains bytes
	chunkSize               // hex digits
	chunkExt                // up to CR
	chunkSizeLF             // LF of the size's line
	chunkData               // remains bytes
	chunkDataCR             // CR after the data
	chunkDataLF             // LF after the data
	trailerStart            // first byte of a trailer line
	trailerLine             // up to CR
	trailerLineLF           // LF of a trailer line
	trailerEndLF            // LF of the blank line
)

// maxChunkLine bounds a chunk extension, and all trailers together.
const maxChunkLine = 8 << 10

func newBody(f framing) body {
	switch {
	case f.chunked:
		return body{state: chunkSize}
	case f.length > 0:
		return body{state: bodyLength, remains: f.length}
	}
	return body{}
}

func (b *body) open() bool { return b.state != bodyDone }

// skip takes n bytes of data that were passed on unseen.
func (b *body) skip(n int) {
	b.remains -= int64(n)
	if b.remains > 0 {
		return
	}
	if b.state == bodyLength {
		b.state = bodyDone
	} else if b.state == chunkData {
		b.state = chunkDataCR
	}
}

// scan returns how many bytes of p belong to the body; with an error, how many
// do before the fault.
func (b *body) scan(p []byte) (int, error) {
	i := 0
	for i < len(p) && b.open() {
		if b.remains > 0 {
			n := int(min(int64(len(p)-i), b.remains))
			b.skip(n)
			i += n
			continue
		}
		if !b.step(p[i]) {
			return i, errBody
		}
		i++
	}
	return i, nil
}

// step takes one byte of framing and reports whether it is legal there.
func (b *body) step(c byte) bool {
	switch b.state {
	case chunkSize:
		return b.stepSize(c)
	case chunkExt:
		return b.stepLine(c, chunkSizeLF)
	case chunkSizeLF:
		b.remains, b.line = b.size, 0
		return b.expect(c, '\n', b.afterSize())
	case chunkDataCR:
		return b.expect(c, '\r', chunkDataLF)
	case chunkDataLF:
		b.size, b.digits = 0, 0
		return b.expect(c, '\n', chunkSize)
	case trailerStart:
		if c == '\r' {
			b.state = trailerEndLF
			return true
		}
		b.state = trailerLine
		return c != ' ' && c != '\t' && b.stepLine(c, trailerLineLF)
	case trailerLine:
		return b.stepLine(c, trailerLineLF)
	case trailerLineLF:
		return b.expect(c, '\n', trailerStart)
	case trailerEndLF:
		return b.expect(c, '\n', bodyDone)
	}
	return false
}

func (b *body) afterSize() bodyState {
	if b.size == 0 {
		return trailerStart
	}
	return chunkData
}

func (b *body) expect(c, want byte, next bodyState) bool {
	b.state = next
	return c == want
}

func (b *body) stepSize(c byte) bool {
	if v, ok := nibble(c); ok {
		b.size = b.size<<4 | int64(v)
		b.digits++
		return b.digits <= 15 // so that it cannot overflow
	}
	switch {
	case b.digits == 0:
		return false
	case c == ';':
		b.state = chunkExt
		return true
	}
	return b.expect(c, '\r', chunkSizeLF)
}

// stepLine takes a byte of a line that ends in CR.
func (b *body) stepLine(c byte, next bodyState) bool {
	if c == '\r' {
		b.state = next
		return true
	}
	b.line++
	return b.line <= maxChunkLine && (c >= ' ' || c == '\t') && c != 0x7f
}
