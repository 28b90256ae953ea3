package authority

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"strings"
	"time"

	"gradegate/internal/fault"
	"gradegate/internal/policy"
	"gradegate/internal/token"
)

// Idem is what makes a request repeatable: the key its client chose, and what
// it presented. Without a key nothing is remembered.
type Idem struct {
	Key       string
	Presented token.Secret
}

// replyLife is how long a lost answer can be asked for again (R2.1).
const replyLife = 10 * time.Minute

// repeatable is one request under its Idempotency-Key.
type repeatable struct {
	Idem
	key     *ReplyKey // nil: nothing is remembered
	request [32]byte  // what two requests under one key must agree in
}

// repeat binds an Idempotency-Key to the secret that was presented with it: two
// people who choose the same key never meet. The local administrator presents
// none, and is one person.
func repeat(s *policy.Subject, idem Idem, what string, request any) repeatable {
	text, err := json.Marshal(request)
	if err != nil {
		text = []byte(err.Error()) // our own plain structs always encode
	}
	r := repeatable{Idem: idem, request: sha256.Sum256(append([]byte(what+"\n"), text...))}
	if idem.Key == "" || idem.Presented.IsZero() && !s.Local {
		return r
	}
	from := []byte("local\n")
	if !idem.Presented.IsZero() {
		d := idem.Presented.Presented().Digest
		from = d.Sum[:]
	}
	key := ReplyKey(sha256.Sum256(append(from, idem.Key...)))
	r.key = &key
	return r
}

// reply is what is remembered of the answer: the id of what was made and, sealed
// under what only the client knows, its secrets if it has any.
func (a *Authority) reply(r repeatable, made string, now time.Time, secrets ...token.Secret) *Reply {
	if r.key == nil {
		return nil
	}
	out := &Reply{Key: *r.key, Request: r.request, Ref: made, Until: now.Add(replyLife)}
	if len(secrets) > 0 {
		var text []string
		for _, s := range secrets {
			text = append(text, s.Reveal())
		}
		out.Sealed = a.keys.Seal([]byte(strings.Join(text, "\n")), r.Key, r.Presented.Reveal())
	}
	return out
}

// once carries a request out, unless it was carried out before under the same
// Idempotency-Key: then again makes the same answer. When it meets a conflict,
// the conflict may be its own twin, which was quicker: then the twin's answer
// is the answer.
func once[T any](ctx context.Context, a *Authority, r repeatable, again func(Reply) (T, error), do func() (T, error)) (T, error) {
	return retry(func() (T, error) {
		if known, err := a.recall(ctx, r); err != nil || known != nil {
			return answer(known, err, again)
		}
		made, err := token.Draw(do)
		if err == nil || r.key == nil || fault.KindOf(err) != fault.Conflict {
			return made, err
		}
		if known, e := a.recall(ctx, r); e != nil || known != nil {
			return answer(known, e, again)
		}
		if errors.Is(err, ErrReplyExists) {
			err = ErrMoved // the twin is about to be committed: the next round meets its answer
		}
		return made, err
	})
}

func answer[T any](known *Reply, err error, again func(Reply) (T, error)) (T, error) {
	if err != nil {
		var none T
		return none, err
	}
	return again(*known)
}

// recall finds what was answered to the same request; nil if it is a new one.
func (a *Authority) recall(ctx context.Context, r repeatable) (*Reply, error) {
	if r.key == nil {
		return nil, nil
	}
	known, err := a.store.Reply(ctx, *r.key, a.now())
	switch {
	case err != nil && fault.KindOf(err) == fault.NotFound:
		return nil, nil
	case err != nil:
		return nil, err
	case known.Request != r.request:
		return nil, errKeyReused
	}
	return &known, nil
}

// Answered reports whether a request of this secret under this Idempotency-Key
// was answered not long ago. The token itself may have ended by that request.
func (a *Authority) Answered(ctx context.Context, idem Idem) bool {
	known, err := a.store.Reply(ctx, *repeat(&policy.Subject{Local: true}, idem, "", nil).key, a.now())
	return err == nil && !known.Until.IsZero()
}

// reissue opens the secret of a repeated request again.
func (a *Authority) reissue(ctx context.Context, r repeatable) func(Reply) (Issued, error) {
	return func(known Reply) (Issued, error) {
		text, err := a.keys.Open(known.Sealed, r.Key, r.Presented.Reveal())
		if err != nil {
			return Issued{}, errKeyReused.Caused(err)
		}
		out := Issued{Replayed: true}
		secret, refresh, both := strings.Cut(string(text), "\n")
		if out.Secret, err = token.ReadSecret(secret); err == nil && both {
			out.Refresh, err = token.ReadSecret(refresh)
		}
		if err != nil {
			return Issued{}, err
		}
		if out.Token, err = a.store.Token(ctx, token.ID(known.Ref)); err != nil || out.Token.Predecessor == "" {
			return out, err
		}
		if old, err := a.store.Token(ctx, out.Token.Predecessor); err == nil {
			out.Predecessor = &old
		}
		return out, nil
	}
}

var errKeyReused = fault.New(fault.Mismatched, "idempotency_key_reused",
	"This Idempotency-Key was used for another request.").WithFix("Use a fresh key for each request.")

// retry runs a decision again when a version moved between reading and
// writing; after a few rounds the conflict is the answer.
func retry[T any](do func() (T, error)) (T, error) {
	for round := 0; ; round++ {
		v, err := do()
		if err == nil || round == 4 || !errors.Is(err, ErrMoved) {
			return v, err
		}
	}
}

// ErrMoved is what a store says when a version no longer stands.
var ErrMoved = fault.New(fault.Conflict, "version_moved", "It was changed by somebody else meanwhile.").
	WithFix("Look at it again and repeat the command.")

// ErrReplyExists is what a store says when the same Idempotency-Key was just
// answered by another request.
var ErrReplyExists = fault.New(fault.Conflict, "reply_exists", "The same request is being answered already.").
	WithFix("Repeat the request with the same Idempotency-Key.")
