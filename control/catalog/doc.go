// Package catalog owns what runs where: signed records, ordered by epoch and revision.
//
// # Order
//
// The catalog is one log. Control signs each record with the position it is to
// have (the epoch, and the log's last sequence + 1) and appends it on condition that this is
// still its place; so a record can be neither moved nor replayed, not even by
// who holds the key of the change streams. Of each key the newest record counts;
// the log forgets older ones, so a reader sees revisions with gaps.
//
// A store restored from a backup begins a new epoch and hands out revisions
// again. A reader then rebuilds from the start of the log ([State.Rebuild]) and
// swaps: records of earlier epochs are still in it, as far as the backup goes.
//
// # Routes
//
// A route belongs to the function that took it first, until a release of that
// function no longer has it or the function is removed: [Snapshot.Admit] says so before
// control signs. A reader does not decide again. It gives a route to the newest
// record that names it: having missed the release by which the older owner let
// go, it would otherwise refuse what control rightly allowed.
package catalog
