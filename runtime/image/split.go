package image

// Split takes memory contents and the values of mutable globals out of a module.
// Errors name the segment and what is wrong with it.
func Split(module []byte) (code []byte, img *Image, err error) { panic("soon") }

// Encode returns the image's own versioned format.
func (*Image) Encode() []byte { panic("soon") }

// Decode reads what Encode wrote, refusing an image larger than maxBytes.
func Decode(b []byte, maxBytes uint64) (*Image, error) { panic("soon") }
