package report

import (
	"errors"
	"fmt"
	"strings"
)

// Copy is where a node is with its copy of a replicated KV namespace.
type Copy struct {
	Project   string    `json:"project"`
	Namespace string    `json:"namespace"`
	State     CopyState `json:"state"`
	Position  uint64    `json:"position,omitempty"` // changes are in it up to this revision
	Head      uint64    `json:"head,omitempty"`     // while it catches up: it is whole at this revision, at least
	Keys      int64     `json:"keys"`
	Bytes     int64     `json:"bytes"` // of keys, values and metadata
	Why       string    `json:"why,omitempty"`
}

// CopyState is whether reads are answered from a copy, and if not why.
type CopyState string

// The states. In all but the first the namespace is read as a cached one.
const (
	CopyWhole    CopyState = "whole"    // reads are answered from it
	CopyCatching CopyState = "catching" // it is being made
	CopyNoRoom   CopyState = "no-room"  // for it on the node's disk
	CopyNone     CopyState = "none"     // Why says it
)

// maxWhy bounds why there is no copy, in bytes.
const maxWhy = 1 << 10

func (c *Copy) validate() error {
	if c.Project == "" || c.Namespace == "" || len(c.Project)+len(c.Namespace) > 256 {
		return errors.New("it has no name or too long a one")
	}
	switch c.State {
	case CopyWhole, CopyCatching, CopyNoRoom, CopyNone:
	default:
		return fmt.Errorf("state %.40q is unknown", c.State)
	}
	if len(c.Why) > maxWhy {
		c.Why = strings.ToValidUTF8(c.Why[:maxWhy], "")
	}
	return nil
}
