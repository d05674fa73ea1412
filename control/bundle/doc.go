// Package bundle packs, signs, verifies and opens one function version.
//
// A bundle is a zstd-compressed tar of exactly two entries, in this order: selvage.toml, the
// manifest as its author wrote it, and module.wasm. There is one form for one content:
// Open refuses an archive that Pack would not have written.
package bundle
