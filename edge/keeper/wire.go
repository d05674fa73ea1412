package keeper

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/selvage-edge/selvage/runtime/jail"
)

// The socket between server and keeper is a privilege boundary: the server
// hosts guests. So a message has one size and no strings: what to do, a number
// to tell requests apart, and at most one sealed file.
//
//	0  2  magic "SK"
//	2  1  version of this layout, 1
//	3  1  kind
//	4  1  verb, of run
//	5  1  status, of done
//	6  2  zero
//	8  8  number: the request's, of run, cancel and done; else what the kind says
//	16 8  wall time in ns, of done
//	24 8  processor time in ns, of done
//
// All integers are little-endian.
//
// Server and keeper may be of neighbouring versions while one of them is being
// upgraded. So kinds that came later have the optional bit: who gets one it does
// not know answers unknown and goes on. Any other kind that is not known is a fault.
const (
	messageSize = 32
	wireVersion = 1
	maxFiles    = 4 // per message, so that too many are seen rather than cut off
)

// knowsKilled is the first protocol whose servers know of jail.Killed.
const knowsKilled = 3

// speaks is the newest protocol this program knows, for hello.
const speaks = knowsKilled

type kind uint8

const (
	ready  kind = iota + 1 // server: I serve
	run                    // server: run a helper on the file
	cancel                 // server: nobody waits for that request any more
	done                   // keeper: how the request ended; the file is its output or text
)

const optional kind = 0x80

const (
	hello   = optional | iota + 1 // both, first: number is the newest protocol the sender speaks
	unknown                       // both: a message of kind number was not known, and nothing was done
	reign                         // keeper: what only one server may do for the node is yours
	retire                        // keeper: another one serves; give up what only one may do, finish, end
	retired                       // server: I gave it up
	upgrade                       // operator: replace the server, by the file if there is one
	stage                         // keeper to operator: the upgrade came to that Stage, number
	verdict                       // keeper to operator: how it ended, number; the file is text
)

// message is one message without its file.
type message struct {
	kind   kind
	verb   jail.Verb
	status jail.Status
	number uint64
	wall   time.Duration
	cpu    time.Duration
}

var errMessage = errors.New("keeper: malformed message")

func (m message) encode() []byte {
	b := make([]byte, messageSize)
	b[0], b[1], b[2] = 'S', 'K', wireVersion
	b[3], b[4], b[5] = byte(m.kind), byte(m.verb), byte(m.status)
	binary.LittleEndian.PutUint64(b[8:], m.number)
	binary.LittleEndian.PutUint64(b[16:], uint64(m.wall))
	binary.LittleEndian.PutUint64(b[24:], uint64(m.cpu))
	return b
}

// decode reads one message that came with so many files. Of kinds it knows it
// takes nothing but what encode writes: fields that a kind does not use are
// zero. Of an optional one that it does not know, only the kind is taken.
func decode(b []byte, files int) (message, error) {
	if len(b) != messageSize || b[0] != 'S' || b[1] != 'K' || b[2] != wireVersion {
		return message{}, errMessage
	}
	if k := kind(b[3]); k&optional != 0 && !k.known() {
		return message{kind: k}, nil
	}
	m := message{
		kind:   kind(b[3]),
		verb:   jail.Verb(b[4]),
		status: jail.Status(b[5]),
		number: binary.LittleEndian.Uint64(b[8:]),
		wall:   time.Duration(binary.LittleEndian.Uint64(b[16:])),
		cpu:    time.Duration(binary.LittleEndian.Uint64(b[24:])),
	}
	if b[6] != 0 || b[7] != 0 || !m.valid(files) {
		return message{}, errMessage
	}
	return m, nil
}

func (k kind) known() bool { return k >= ready && k <= done || k >= hello && k <= verdict }

func (m message) valid(files int) bool {
	switch m.kind {
	case ready, reign, retire, retired:
		return files == 0 && m == message{kind: m.kind}
	case run:
		return files == 1 && m.verb.Valid() && m == message{kind: run, verb: m.verb, number: m.number}
	case cancel, hello, unknown, stage:
		return files == 0 && m == message{kind: m.kind, number: m.number}
	case done:
		return (files == 0 || files == 1) && m.status.Valid() && m.verb == 0 && m.wall >= 0 && m.cpu >= 0
	case upgrade:
		return (files == 0 || files == 1) && m == message{kind: upgrade}
	case verdict:
		return (files == 0 || files == 1) && m == message{kind: verdict, number: m.number}
	default:
		return false
	}
}

// link is one end of the socket. Any number may send; one receives.
type link struct {
	conn *net.UnixConn
	mu   sync.Mutex // one message at a time, so that deadlines do not mix
}

// patience is how long the other end may leave its socket full.
const patience = 10 * time.Second

func newLink(f *os.File) (*link, error) {
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		return nil, fmt.Errorf("keeper: %w", err)
	}
	u, ok := c.(*net.UnixConn)
	if !ok {
		c.Close()
		return nil, errors.New("keeper: the control socket is of another kind")
	}
	return &link{conn: u}, nil
}

// send sends m and, if it is not nil, f, which stays the caller's.
func (l *link) send(m message, f *os.File) error {
	var rights []byte
	if f != nil {
		rights = unix.UnixRights(int(f.Fd()))
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.conn.SetWriteDeadline(time.Now().Add(patience)); err != nil {
		return fmt.Errorf("keeper: send: %w", err)
	}
	if _, _, err := l.conn.WriteMsgUnix(m.encode(), rights, nil); err != nil {
		return fmt.Errorf("keeper: send: %w", err)
	}
	return nil
}

// receive waits for a message. Its file, if there is one, is the caller's. The
// error is io.EOF when the other end is gone and errMessage when it is not to
// be trusted.
func (l *link) receive() (message, *os.File, error) {
	for {
		m, f, err := l.read()
		if err != nil || m.kind.known() {
			return m, f, err
		}
		if err := l.send(message{kind: unknown, number: uint64(m.kind)}, nil); err != nil {
			return message{}, nil, err
		}
	}
}

// read is receive that also returns kinds that are not known, without their files.
func (l *link) read() (message, *os.File, error) {
	b, oob := make([]byte, messageSize+1), make([]byte, unix.CmsgSpace(maxFiles*4))
	n, oobn, flags, _, err := l.conn.ReadMsgUnix(b, oob)
	if err != nil {
		return message{}, nil, receiveError(err)
	}
	files, err := takeFiles(oob[:oobn])
	m, derr := decode(b[:n], len(files))
	if err != nil || derr != nil || flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0 {
		closeAll(files)
		return message{}, nil, errMessage
	}
	if len(files) == 0 || !m.kind.known() {
		closeAll(files)
		return m, nil, nil
	}
	return m, files[0], nil
}

func receiveError(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) || errors.Is(err, syscall.ECONNRESET) {
		return io.EOF
	}
	return fmt.Errorf("keeper: receive: %w", err)
}

// takeFiles returns the files of a control message; also, to be closed, those
// that came before an error.
func takeFiles(oob []byte) ([]*os.File, error) {
	var files []*os.File
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, errMessage
	}
	for _, c := range msgs {
		fds, err := unix.ParseUnixRights(&c)
		if err != nil {
			return files, errMessage
		}
		for _, fd := range fds {
			files = append(files, os.NewFile(uintptr(fd), "received"))
		}
	}
	return files, nil
}

func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}

func (l *link) close() { l.conn.Close() }
