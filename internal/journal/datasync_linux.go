package journal

import (
	"errors"
	"os"
	"syscall"
)

// Datasync is fdatasync. It goes through SyscallConn so that a concurrent Close
// cannot hand the descriptor's number to another file.
func (f osFile) Datasync() error {
	conn, err := f.SyscallConn()
	if err != nil {
		return err
	}
	cerr := conn.Control(func(fd uintptr) {
		for {
			err = syscall.Fdatasync(int(fd))
			if !errors.Is(err, syscall.EINTR) {
				return
			}
		}
	})
	if cerr != nil {
		return cerr
	}
	return os.NewSyscallError("fdatasync", err)
}
