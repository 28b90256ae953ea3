//go:build !crashpoints

package store

// crashPoint is where the crash tests of the built binary end the process; see
// crashpoint_on.go. In every other build it is nothing.
func crashPoint(point) {}
