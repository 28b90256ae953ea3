// Command gradegate is the token authority and front door of a grading service.
package main

import (
	"context"
	"os"

	"gradegate/internal/cli"
)

func main() {
	os.Exit(cli.Run(context.Background(), os.Args[1:], os.Environ(), os.Stdin, os.Stdout, os.Stderr))
}
