package artifact

// Key authenticates this node's artifacts. It never leaves the node, no two
// nodes share one (a captured node must not make another run its code), and it
// lies outside the folder: whoever can write artifacts must not read it.
type Key [32]byte

// String hides the key.
func (Key) String() string { return "artifact.Key(hidden)" }

// GoString hides the key.
func (k Key) GoString() string { return k.String() }
