// Command empty is the fastest thing that net/http can be: a handler that does
// nothing. Figures are ratios to it.
package main

import (
	"fmt"
	"net"
	"net/http"
	"os"
)

func main() {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Printf("gradegate empty on http://%s\nmanage\n", l.Addr())
	if err := http.Serve(l, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})); err != nil { //nolint:gosec // a benchmark on loopback
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
