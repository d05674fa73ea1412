package report

// PlacedPath is where a node says, as JSON of a list of Placed, what it has of each
// function and what it answered; on its peer listener.
const PlacedPath = "/peer/v1/placed"

// Placed is what one node has of one function of its catalog, and what it answered
// since its server started.
type Placed struct {
	Project  string `json:"project"`
	Function string `json:"function"`
	Release  uint64 `json:"release"`
	Live     bool   `json:"live"`    // it can be run there
	OnDisk   bool   `json:"on_disk"` // code or image, that no other function has which may be there
	Answered uint64 `json:"answered"`
	Away     uint64 `json:"away"`      // of these, although it was placed elsewhere
	Pinned   uint64 `json:"pinned"`    // of these, although it was pinned there
	PassedOn uint64 `json:"passed_on"` // requests handed on to another node
}
