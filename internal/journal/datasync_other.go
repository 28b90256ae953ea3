//go:build !linux

package journal

// Datasync is fsync where there is no portable fdatasync.
func (f osFile) Datasync() error { return f.Sync() }
