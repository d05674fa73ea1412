package store

import (
	"fmt"
	"syscall"
)

// disk watches the volume of dir, and what the embedded server holds of it. The
// zero disk has room for everything.
type disk struct {
	dir     string
	reserve int64        // bytes of the volume to keep free
	used    func() int64 // bytes the embedded server holds; nil with an outside cluster
	most    int64        // bytes it may hold
}

// measure sets the reserve and maxBytes where they are zero, by the volume's size.
func (d *disk) measure(maxBytes *int64) error {
	var st syscall.Statfs_t
	if err := syscall.Statfs(d.dir, &st); err != nil {
		return fmt.Errorf("store: size of the volume of %s: %w", d.dir, err)
	}
	total := int64(st.Blocks) * st.Bsize
	if d.reserve == 0 {
		d.reserve = min(2<<30, total/10)
	}
	if *maxBytes == 0 {
		*maxBytes = total / 4 * 3
	}
	return nil
}

// auditShare is the part of the bound that is kept for the audit trail.
const auditShare = 16

// room fails with ErrFull when writing n bytes would eat into what is kept free.
func (d *disk) room(n int64) error { return d.roomFor(n, d.reserve, d.most-d.most/auditShare) }

// roomForAudit is room for the audit trail, which may use half of what is kept
// free: what other writes are refused for can still be recorded.
func (d *disk) roomForAudit(n int64) error { return d.roomFor(n, d.reserve/2, d.most) }

func (d *disk) roomFor(n, reserve, most int64) error {
	if d.dir == "" {
		return nil
	}
	if d.used != nil {
		// The server itself looks only after the fact: one write may pass its bound by its own size.
		if used := d.used(); used+n > most {
			return fmt.Errorf("%w (%d of at most %d MiB used)", ErrFull, used>>20, most>>20)
		}
	}
	var st syscall.Statfs_t
	if err := syscall.Statfs(d.dir, &st); err != nil {
		return fmt.Errorf("store: free space of %s: %w", d.dir, err)
	}
	if free := int64(st.Bavail) * st.Bsize; free-n < reserve {
		return fmt.Errorf("%w (%d MiB free on the volume of %s, %d MiB reserved)", ErrFull, free>>20, d.dir, reserve>>20)
	}
	return nil
}
