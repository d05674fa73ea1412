// Package sdktest builds guests with the Go SDK and checks that they answer as
// net/http does.
package sdktest
