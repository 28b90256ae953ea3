package httpapi

import (
	"net"
	"syscall"
)

// peerUID asks the kernel who is at the other end of a local socket.
func peerUID(c net.Conn) (uid uint32, ok bool) {
	s, isUnix := c.(*net.UnixConn)
	if !isUnix {
		return 0, false
	}
	raw, err := s.SyscallConn()
	if err != nil {
		return 0, false
	}
	err = raw.Control(func(fd uintptr) {
		cred, err := syscall.GetsockoptUcred(int(fd), syscall.SOL_SOCKET, syscall.SO_PEERCRED)
		if err == nil {
			uid, ok = cred.Uid, true
		}
	})
	return uid, ok && err == nil
}
