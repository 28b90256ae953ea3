// Package tokentest makes secrets that only tests want.
package tokentest

import (
	"hash/crc32"
	"strings"

	"gradegate/internal/token"
)

const alphabet = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

// Guess is a wrong secret in the right form, with the id of a token: what
// somebody sends who knows the id and not the secret.
func Guess(id token.ID) token.Secret {
	fresh := token.NewSecret(token.Personal).Reveal()
	public := strings.TrimPrefix(string(id), "tok_")
	const prefix, sum = len("ggpat_"), 6
	body := public + fresh[prefix+len(public):len(fresh)-sum]
	n, tail := crc32.ChecksumIEEE([]byte(body)), make([]byte, sum)
	for i := sum - 1; i >= 0; i-- {
		tail[i] = alphabet[n%62]
		n /= 62
	}
	s, err := token.ReadSecret(fresh[:prefix] + body + string(tail))
	if err != nil {
		panic("tokentest: " + err.Error())
	}
	return s
}
