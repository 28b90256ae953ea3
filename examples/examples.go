// Package examples holds the example competition, so that the demo needs
// nothing but the program itself.
package examples

import "embed"

// Iris is the folder iris: Fisher's data, a program, predictions.
//
//go:embed iris
var Iris embed.FS
