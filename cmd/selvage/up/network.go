package up

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"time"
)

// Network is a network of a fleet's own: a namespace for each node, and a bridge between
// them that this process is on, too. What is cut off is cut off by nftables in the
// node's namespace: packets are dropped, as on a link that is broken, and nothing is refused.
// It needs root, ip and nft.
type Network struct {
	name string     // begins the name of each namespace
	here netip.Addr // this process's address on the bridge
	made []string   // the namespaces
}

// ErrNoNetwork is in the error of OpenNetwork where there can be none: not as root, or
// ip or nft is not installed.
var ErrNoNetwork = errors.New("up: no network namespaces")

// hub is the namespace of the bridge.
const hub = "hub"

// OpenNetwork makes the network and moves the nodes of l, before they are booted, onto
// it: control and up to MaxPoPs PoPs. Close takes it away; Stop the fleet before.
func OpenNetwork(ctx context.Context, l *Layout) (*Network, error) {
	if err := mayNetwork(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoNetwork, err)
	}
	pid := os.Getpid()
	// 198.18.0.0/15 is for tests of networks (RFC 2544): it leads nowhere.
	base := netip.AddrFrom4([4]byte{198, 18 + byte(pid>>8&1), byte(pid), 1})
	here := base.As4()
	here[3] = 254
	n := &Network{name: fmt.Sprintf("slv%d", pid), here: netip.AddrFrom4(here)}
	l.moveTo(base, func(node string) []string { return []string{"ip", "netns", "exec", n.space(node)} })
	if err := n.open(ctx, l); err != nil {
		return nil, errors.Join(err, n.Close())
	}
	return n, nil
}

func mayNetwork() error {
	if os.Geteuid() != 0 {
		return errors.New("only root may make them")
	}
	for _, tool := range []string{"ip", "nft"} {
		if _, err := exec.LookPath(tool); err != nil {
			return fmt.Errorf("%w: install iproute2 and nftables", err)
		}
	}
	return nil
}

func (n *Network) space(node string) string { return n.name + "-" + node }

func (n *Network) open(ctx context.Context, l *Layout) error {
	if err := n.namespace(ctx, hub, "ip -n SPACE link add bridge type bridge", "ip -n SPACE link set bridge up",
		fmt.Sprintf("ip link add %s type veth peer name here netns SPACE", n.name), "ip -n SPACE link set here master bridge up",
		fmt.Sprintf("ip addr add %s/24 dev %s", n.here, n.name), fmt.Sprintf("ip link set %s up", n.name)); err != nil {
		return err
	}
	for i, node := range append([]Node{l.Control}, l.Edges...) {
		port := fmt.Sprint("port", i)
		if err := n.namespace(ctx, node.Name,
			fmt.Sprintf("ip -n SPACE link add eth0 type veth peer name %s netns %s", port, n.space(hub)),
			fmt.Sprintf("ip -n %s link set %s master bridge up", n.space(hub), port),
			fmt.Sprintf("ip -n SPACE addr add %s/24 dev eth0", node.Addr), "ip -n SPACE link set eth0 up"); err != nil {
			return err
		}
	}
	return nil
}

// namespace makes one and runs commands for it, with its name where they say SPACE.
func (n *Network) namespace(ctx context.Context, node string, commands ...string) error {
	space := n.space(node)
	if err := tool(ctx, "", "ip", "netns", "add", space); err != nil {
		return err
	}
	n.made = append(n.made, space)
	for _, c := range append([]string{"ip -n SPACE link set lo up"}, commands...) {
		if err := tool(ctx, "", strings.Fields(strings.ReplaceAll(c, "SPACE", space))...); err != nil {
			return err
		}
	}
	return nil
}

// cutRules drop all but what the node says to itself and to this process.
const cutRules = `table inet cut {
	chain in { type filter hook input priority 0; iifname "lo" accept; ip saddr %[1]s accept; drop; }
	chain out { type filter hook output priority 0; oifname "lo" accept; ip daddr %[1]s accept; drop; }
}
`

// Cut cuts a node off from the other nodes; this process still reaches it.
func (n *Network) Cut(ctx context.Context, node Node) error {
	return tool(ctx, fmt.Sprintf(cutRules, n.here), "ip", "netns", "exec", n.space(node.Name), "nft", "-f", "-")
}

// Heal undoes Cut.
func (n *Network) Heal(ctx context.Context, node Node) error {
	return tool(ctx, "", "ip", "netns", "exec", n.space(node.Name), "nft", "delete", "table", "inet", "cut")
}

// Close takes the network away, with the bridge and all links: they end with their namespaces.
func (n *Network) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var errs []error
	for _, space := range n.made {
		errs = append(errs, tool(ctx, "", "ip", "netns", "delete", space))
	}
	n.made = nil
	return errors.Join(errs...)
}

// tool runs a command with input.
func tool(ctx context.Context, input string, line ...string) error {
	cmd := exec.CommandContext(ctx, line[0], line[1:]...)
	cmd.Stdin = strings.NewReader(input)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("up: %s: %w: %s", strings.Join(line, " "), err, out)
	}
	return nil
}
