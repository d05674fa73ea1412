// Package image splits a module into code, compiled once and shared, and image:
// the memory and globals that an instance starts with.
package image

import "fmt"

// PageSize is the unit of a memory's size, in bytes.
const PageSize = 64 << 10

// MaxSize is the largest image, in bytes: no memory limit is above it.
const MaxSize = 1 << 30

// Image is an instance's initial memory and globals; all memory outside Runs is zero.
type Image struct {
	Size    uint64 // bytes, a multiple of PageSize
	Runs    []Run  // in ascending order, not overlapping, inside Size
	Globals []Global
}

// Run is bytes at a place of the memory.
type Run struct {
	Offset uint64
	Data   []byte
}

// Global is the value of one mutable global; it is exported by the code as GlobalExport(Index).
type Global struct {
	Index uint32 // among the module's globals, imports counted
	Type  byte   // 0x7f i32, 0x7e i64, 0x7d f32, 0x7c f64
	Bits  uint64 // 32-bit types in the low half
}

// maxRuns bounds what reading an image may allocate beside its bytes.
const maxRuns = 1 << 20

// GlobalExport is the name under which code exports mutable global i.
func GlobalExport(i uint32) string { return fmt.Sprintf("%s%d", GlobalPrefix, i) }

// GlobalPrefix starts the names of GlobalExport.
const GlobalPrefix = "selvage:global:"

// StartExport is the name under which code exports the function of the module's
// start section, which Split takes out: globals come from the image first. A
// program over an image that was not taken after start-up calls it before any
// other entry.
const StartExport = "selvage:start"

// MemoryExport is the name under which code exports its memory when the module did not.
const MemoryExport = "selvage:memory"

// RenewableExport is a second name of the memory in code whose guests can leave nothing behind but the
// memory's bytes, its size, and the values of mutable globals (GlobalExport), which in a new instance
// are the image's or zero. An instance can then be made as good as new without making another.
const RenewableExport = "selvage:renewable"

// RenewableGlobals is how many mutable globals such code has at most: to set them back is work that nobody is charged for.
const RenewableGlobals = 64

// Validate reports what would not fit an instance.
func (m *Image) Validate() error {
	if m.Size%PageSize != 0 || m.Size > MaxSize {
		return fmt.Errorf("image: size %d: want a multiple of %d up to %d", m.Size, PageSize, MaxSize)
	}
	if len(m.Runs) > maxRuns {
		return fmt.Errorf("image: %d scattered pieces of data; at most %d are supported", len(m.Runs), maxRuns)
	}
	var end uint64
	for i, r := range m.Runs {
		if r.Offset < end || r.Offset > m.Size || uint64(len(r.Data)) > m.Size-r.Offset {
			return fmt.Errorf("image: run %d, %d bytes at %d, overlaps the one before or ends outside the %d bytes of memory", i, len(r.Data), r.Offset, m.Size)
		}
		end = r.Offset + uint64(len(r.Data))
	}
	for i, g := range m.Globals {
		if g.Type < 0x7c || g.Type > 0x7f {
			return fmt.Errorf("image: global %d has type %#x: want a number type", g.Index, g.Type)
		}
		if i > 0 && g.Index <= m.Globals[i-1].Index {
			return fmt.Errorf("image: global %d is not in ascending order", g.Index)
		}
	}
	return nil
}
