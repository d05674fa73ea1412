package bundle

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"
	"github.com/selvage-edge/selvage/runtime/function"
)

// moduleName is the module's entry in a bundle.
const moduleName = "module.wasm"

const (
	// window bounds what a bundle can make us hold to decompress it (RFC 8878 section 3.1.1.1.2).
	window = 8 << 20
	// freeBytes may be unpacked whatever the ratio.
	freeBytes = 1 << 20
)

// ErrTooLarge is wrapped by refusals over a size limit.
var ErrTooLarge = errors.New("too large")

// ErrMalformed is wrapped by refusals of what Pack did not make.
var ErrMalformed = errors.New("not a bundle")

// Limits bound what Open accepts. Zero fields mean their defaults.
type Limits struct {
	PackedBytes   int64 // default 64 MiB
	UnpackedBytes int64 // of all entries; default 64 MiB
	Ratio         int64 // unpacked to packed, counted above 1 MiB unpacked; default 100
}

// WithDefaults returns l with every zero field set to its default.
func (l Limits) WithDefaults() Limits {
	for field, def := range map[*int64]int64{&l.PackedBytes: 64 << 20, &l.UnpackedBytes: 64 << 20, &l.Ratio: 100} {
		if *field == 0 {
			*field = def
		}
	}
	return l
}

// unpacked returns how many bytes an archive of n packed ones may unpack to.
func (l Limits) unpacked(n int) int64 {
	const overhead = 8 << 10 // tar's headers and padding
	return min(l.UnpackedBytes+overhead, max(freeBytes, int64(n)*l.Ratio))
}

// Bundle is an opened bundle: checked, not yet trusted (see Verify).
type Bundle struct {
	Manifest *Manifest
	Module   []byte
	Digest   function.Digest // of the packed bytes
}

// Pack makes the bundle of a manifest (as written) and a module. The same
// content gives the same bytes. It refuses what Open would refuse; the error
// is a *Faults if the manifest is wrong.
func Pack(manifest, module []byte) (packed []byte, digest function.Digest, err error) {
	if _, err := ParseManifest(ManifestName, manifest); err != nil {
		return nil, "", err
	}
	var b bytes.Buffer
	z, err := zstd.NewWriter(&b, zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(window), zstd.WithEncoderLevel(zstd.SpeedDefault))
	if err != nil {
		return nil, "", fmt.Errorf("pack: %w", err)
	}
	if err := errors.Join(writeTar(z, manifest, module), z.Close()); err != nil {
		return nil, "", fmt.Errorf("pack: %w", err)
	}
	if _, err := Open(b.Bytes(), Limits{}); err != nil {
		return nil, "", fmt.Errorf("pack: %w", err)
	}
	return b.Bytes(), function.DigestOf(b.Bytes()), nil
}

// writeTar writes the one archive of this content: USTAR, no times, no owners.
func writeTar(w io.Writer, manifest, module []byte) error {
	t := tar.NewWriter(w)
	for _, e := range []struct {
		name string
		data []byte
	}{{ManifestName, manifest}, {moduleName, module}} {
		h := &tar.Header{Typeflag: tar.TypeReg, Name: e.name, Size: int64(len(e.data)), Mode: 0o644, Format: tar.FormatUSTAR}
		if err := t.WriteHeader(h); err != nil {
			return err
		}
		if _, err := t.Write(e.data); err != nil {
			return err
		}
	}
	return t.Close()
}

// Open reads a bundle from anyone: bounded, nothing written, nothing run. Errors
// wrap ErrTooLarge or ErrMalformed, or are a *Faults if only the manifest is wrong.
func Open(packed []byte, l Limits) (*Bundle, error) {
	l = l.WithDefaults()
	if int64(len(packed)) > l.PackedBytes {
		return nil, fmt.Errorf("open bundle: %w: %d bytes; at most %d", ErrTooLarge, len(packed), l.PackedBytes)
	}
	b := &Bundle{Digest: function.DigestOf(packed)}
	manifest, err := b.unpack(packed, l)
	if err != nil {
		return nil, fmt.Errorf("open bundle: %w", err)
	}
	if b.Manifest, err = ParseManifest(ManifestName, manifest); err != nil {
		return nil, err
	}
	return b, nil
}

// unpack fills in the module and returns the manifest.
func (b *Bundle) unpack(packed []byte, l Limits) ([]byte, error) {
	z, err := zstd.NewReader(bytes.NewReader(packed),
		zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
		zstd.WithDecoderMaxWindow(window), zstd.WithDecoderMaxMemory(uint64(l.UnpackedBytes)))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	defer z.Close()
	raw, err := readBounded(z, l.unpacked(len(packed)))
	if err != nil {
		return nil, err
	}
	t := tar.NewReader(bytes.NewReader(raw))
	most := min(l.UnpackedBytes, int64(len(raw)))
	manifest, err := entry(t, ManifestName, min(most, MaxManifestBytes))
	if err != nil {
		return nil, err
	}
	if b.Module, err = entry(t, moduleName, most); err != nil {
		return nil, err
	}
	return manifest, onlyForm(raw, manifest, b.Module)
}

// readBounded reads all of r, growing as bytes come and never past most.
func readBounded(r io.Reader, most int64) ([]byte, error) {
	raw, err := io.ReadAll(io.LimitReader(r, most+1))
	switch {
	case errors.Is(err, zstd.ErrDecoderSizeExceeded), errors.Is(err, zstd.ErrWindowSizeExceeded):
		return nil, fmt.Errorf("%w: %w", ErrTooLarge, err)
	case err != nil:
		return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	case int64(len(raw)) > most:
		return nil, fmt.Errorf("%w: it unpacks to more than %d bytes", ErrTooLarge, most)
	}
	return raw, nil
}

// entry reads the next entry, which must be a plain file of this name.
func entry(t *tar.Reader, name string, most int64) ([]byte, error) {
	h, err := t.Next()
	switch {
	case errors.Is(err, io.EOF):
		return nil, fmt.Errorf("%w: %s is missing", ErrMalformed, name)
	case err != nil:
		return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	case h.Name != name:
		return nil, fmt.Errorf("%w: entry %.200q where %s is wanted", ErrMalformed, h.Name, name)
	case h.Typeflag != tar.TypeReg || len(h.PAXRecords) > 0:
		return nil, fmt.Errorf("%w: %s is not a plain file", ErrMalformed, name)
	case h.Size > most:
		return nil, fmt.Errorf("%w: %s has %d bytes; at most %d", ErrTooLarge, name, h.Size, most)
	}
	data := make([]byte, h.Size)
	if _, err := io.ReadFull(t, data); err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrMalformed, name, err)
	}
	return data, nil
}

// onlyForm checks that the archive is the one Pack writes for this content:
// whatever else a tar can say (owners, links, sparse files, more entries, bytes
// after the end) differs from it.
func onlyForm(raw, manifest, module []byte) error {
	d := &differ{rest: raw}
	if err := writeTar(d, manifest, module); err != nil {
		return fmt.Errorf("%w: its archive says more than a manifest and a module; make it with selvage build", ErrMalformed)
	}
	if len(d.rest) > 0 {
		return fmt.Errorf("%w: %d bytes after the module; make it with selvage build", ErrMalformed, len(d.rest))
	}
	return nil
}

// differ is a writer that fails when what is written is not what is expected.
type differ struct{ rest []byte }

func (d *differ) Write(p []byte) (int, error) {
	if !bytes.HasPrefix(d.rest, p) {
		return 0, ErrMalformed
	}
	d.rest = d.rest[len(p):]
	return len(p), nil
}
