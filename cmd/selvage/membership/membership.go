// Package membership opens a node's identity, or gets it one with a join token.
package membership

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"

	"github.com/selvage-edge/selvage/control/identity"
)

// joinVariable holds the one-time join token of a first start.
const joinVariable = "SELVAGE_JOIN_TOKEN"

// Open opens the identity in dir, or joins the fleet for one.
func Open(ctx context.Context, log *slog.Logger, dir string, who identity.JoinOptions) (*identity.Node, error) {
	text := os.Getenv(joinVariable)
	os.Unsetenv(joinVariable) // it is a secret, spent once
	id, err := identity.OpenNode(dir, nil)
	if errors.Is(err, fs.ErrNotExist) {
		id, err = join(ctx, log, dir, text, who)
	} else if err != nil {
		err = fmt.Errorf("%w: put %s back from a copy, or remove it and start with a new token ('selvage join-token') in $%s", err, dir, joinVariable)
	}
	if err != nil {
		return nil, err
	}
	if p := id.Member.Peer(); p.Name != who.Name || p.PoP != who.PoP {
		return nil, fmt.Errorf("this node joined as %s of PoP %s, but its configuration says %s of %s: correct node.name and node.pop, or give it a new state folder and join again",
			p.Name, p.PoP, who.Name, who.PoP)
	}
	return id, nil
}

func join(ctx context.Context, log *slog.Logger, dir, text string, who identity.JoinOptions) (*identity.Node, error) {
	if text == "" {
		return nil, fmt.Errorf("this node has not joined a fleet: set $%s to a token made by 'selvage join-token' and start it again", joinVariable)
	}
	token, err := identity.ParseJoinToken(text)
	if err != nil {
		return nil, fmt.Errorf("$%s: %w", joinVariable, err)
	}
	id, err := identity.Join(ctx, dir, token, who)
	if err != nil {
		return nil, err
	}
	log.Info("joined", "fleet", id.Member.Peer().Fleet, "root", id.Root)
	return id, nil
}
