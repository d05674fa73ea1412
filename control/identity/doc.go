// Package identity owns who may say what in a fleet: the root key, its
// delegations, the fleet's CA, tokens, and how a node joins.
//
// # Trust
//
// One Ed25519 root key, kept offline or under a passphrase, signs short
// delegations: each gives one public key one purpose until a date, under a
// serial that can be revoked. There is one level: no delegated key can delegate.
// What a key signs travels in an [Envelope], which follows DSSE v1.0
// (https://github.com/secure-systems-lab/dsse/blob/v1.0.0/protocol.md): the
// signature covers the payload and its type by the pre-authentication encoding,
// so an envelope of one kind is never taken for another.
//
// A [Bundle] is everything public: root key, delegations, revocations, CA
// certificates. [NewTrust] checks all of it down from the root's fingerprint;
// an [Anchor] holds the newest and refuses to go back.
//
// # TLS
//
// The fleet's CA is an ECDSA P-256 X.509 authority whose key is delegated by the
// root. Its certificate carries that delegation and the root's public key in a URI name of its
// own (selvage-delegation:...), and servers send it with their leaf. So whoever knows
// nothing but the root's fingerprint can check a server within the handshake,
// before a byte of HTTP is sent: fingerprint, root key, delegation, CA key, CA
// certificate, leaf, its fleet and kind. There is no request to an unverified
// server anywhere, and neither a join secret nor an API token ever reaches a server that
// cannot prove itself. [ClientTLS] is that check for the API's clients;
// [Member] does it in both directions between the processes of a fleet, from
// the trust they hold, where revocations count too.
//
// A leaf names what it is for in URIs: selvage://FLEET/node/NAME or
// selvage://FLEET/control/NAME, with selvage://FLEET/pop/POP and /region/REGION beside it.
package identity
