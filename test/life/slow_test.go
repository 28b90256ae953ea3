//go:build race

package life

// share is what of the usual number of histories is gone through: the race
// detector makes SQLite, which is Go here, ten times slower.
const share = 0.4
