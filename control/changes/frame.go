package changes

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/selvage-edge/selvage/runtime/plain"
)

// A frame is a u32 length (little-endian, of what follows), a kind byte and a payload.
type frameKind byte

const (
	frameBatch     frameKind = iota + 1 // a sealed batch
	frameHeartbeat                      // nothing; says that the stream lives
	frameNotice                         // JSON notice, unsigned: a hint, never a change
)

// maxFrame is a batch and its signature.
const maxFrame = MaxBatchBytes + 4096

var errFrame = errors.New("changes: not a frame")

// maxDetail is the most that is kept of a notice's detail, in bytes.
const maxDetail = 1 << 10

// notice tells a follower why a log does not come as it asked.
type notice struct {
	Log    string `json:"log"`
	Code   string `json:"code"`            // one of those below
	Epoch  uint64 `json:"epoch,omitempty"` // resync: the log's epoch now; refused: of a log that is below the position
	Seq    uint64 `json:"seq,omitempty"`   // refused: that log's head
	Detail string `json:"detail,omitempty"`
}

const (
	noticeResync  = "resync"  // the position cannot be continued: begin again
	noticeRefused = "refused" // the follower may not have this log now
	noticeBelow   = "below"   // a neighbour no longer has what continues the position: ask control
)

func writeFrame(w io.Writer, kind frameKind, payload []byte) error {
	if len(payload) >= maxFrame {
		return fmt.Errorf("changes: frame of %d bytes, over %d", len(payload), maxFrame)
	}
	head := binary.LittleEndian.AppendUint32(make([]byte, 0, 5), uint32(len(payload)+1))
	if _, err := w.Write(append(head, byte(kind))); err != nil {
		return err
	}
	_, err := w.Write(payload)
	return err
}

// readFrame returns the next frame; io.EOF only between frames. The buffer is
// grown as bytes arrive, never on a length's word.
func readFrame(r io.Reader) (frameKind, []byte, error) {
	var head [5]byte
	if _, err := io.ReadFull(r, head[:4]); err != nil {
		return 0, nil, err
	}
	n := binary.LittleEndian.Uint32(head[:4])
	if n == 0 || n > maxFrame {
		return 0, nil, fmt.Errorf("%w: %d bytes, want 1 to %d", errFrame, n, maxFrame)
	}
	if _, err := io.ReadFull(r, head[4:]); err != nil {
		return 0, nil, short(err)
	}
	payload, err := io.ReadAll(io.LimitReader(r, int64(n-1)))
	if err != nil {
		return 0, nil, err
	}
	if len(payload) != int(n-1) {
		return 0, nil, io.ErrUnexpectedEOF
	}
	return frameKind(head[4]), payload, nil
}

func short(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

func decodeNotice(b []byte) (notice, error) {
	var n notice
	if err := json.Unmarshal(b, &n); err != nil {
		return n, fmt.Errorf("%w: notice: %w", errFrame, err)
	}
	n.Detail = plain.Line(n.Detail, maxDetail)
	return n, nil
}

// framer sends frames to one follower, each within a limit.
type framer struct {
	w     http.ResponseWriter
	rc    *http.ResponseController
	limit time.Duration
}

func newFramer(w http.ResponseWriter, limit time.Duration) *framer {
	return &framer{w: w, rc: http.NewResponseController(w), limit: limit}
}

func (f *framer) write(kind frameKind, payload []byte) error {
	f.deadline()
	return slow(writeFrame(f.w, kind, payload))
}

func (f *framer) flush() error {
	f.deadline()
	return slow(f.rc.Flush())
}

// deadline is set by the real clock: the connection knows no other. A writer
// without deadlines has nothing that could block.
func (f *framer) deadline() { _ = f.rc.SetWriteDeadline(time.Now().Add(f.limit)) }

func slow(err error) error {
	if err != nil {
		return fmt.Errorf("%w: %w", errSlow, err)
	}
	return nil
}
