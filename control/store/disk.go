package store

import (
	"fmt"
	"syscall"
)

// disk watches the volume of dir. The zero disk has room for everything.
type disk struct {
	dir     string
	reserve int64 // bytes to keep free
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

// room fails with ErrFull when writing n bytes would eat into the reserve.
func (d *disk) room(n int64) error {
	if d.dir == "" {
		return nil
	}
	var st syscall.Statfs_t
	if err := syscall.Statfs(d.dir, &st); err != nil {
		return fmt.Errorf("store: free space of %s: %w", d.dir, err)
	}
	if free := int64(st.Bavail) * st.Bsize; free-n < d.reserve {
		return fmt.Errorf("%w (%d MiB free on the volume of %s, %d MiB reserved)", ErrFull, free>>20, d.dir, d.reserve>>20)
	}
	return nil
}
