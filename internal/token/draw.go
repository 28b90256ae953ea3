package token

import "gradegate/internal/fault"

// draws is how often a secret is drawn before its id is said to be taken.
const draws = 3

// Draw makes something with fresh secrets, and makes it again if a store says
// that the id of one is taken (R7.4). Among 62^12 ids that happens to nobody;
// three times in a row it says that this machine's random numbers repeat, and
// nothing is issued.
func Draw[T any](try func() (T, error)) (out T, err error) {
	for range draws {
		if out, err = try(); fault.CodeOf(err) != "id_taken" {
			return out, err
		}
	}
	return out, errRepeats.Caused(err)
}

var errRepeats = fault.New(fault.Internal, "random_repeats", "Three fresh ids in a row were taken: the random numbers of this machine repeat themselves. Nothing was issued.").
	WithFix("Tell the operator: mend the machine's random source before it issues secrets again.")
