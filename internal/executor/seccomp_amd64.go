package executor

import "golang.org/x/sys/unix"

// filterArch is the machine whose calls the filter knows.
const filterArch = unix.AUDIT_ARCH_X86_64
