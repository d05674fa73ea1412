// Package logs gathers what all nodes log, live, for who follows it.
//
// A node serves its own log (Handler) to control; control asks every node that
// may have wanted lines, and merges the answers in the order of their times (Hub).
// Lines travel as JSON, one each; only what was asked for travels, and only while
// somebody asks. Whoever reads too slowly loses lines and is told how many: at the
// node, where they would have been kept, and never at the cost of a request.
package logs
