package httpapi

import (
	"context"
	"net/http"
	"reflect"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"gradegate/api"
	"gradegate/internal/policy"
	"gradegate/internal/token"
)

// reply is how an answer is handed to Huma.
type reply[O any] struct{ Body O }

// handle is the one adapter for JSON routes: a use case is a function of the
// subject and a request, and knows nothing of HTTP.
func handle[I, O any](use func(*API, context.Context, *policy.Subject, *I) (O, error)) func(*API, huma.API, *route) {
	return func(a *API, h huma.API, r *route) {
		r.is |= jsonBody
		if _, has := reflect.TypeFor[I]().FieldByName("Body"); !has {
			r.is |= bodiless
		}
		huma.Register(h, r.operation(), func(ctx context.Context, in *I) (*reply[O], error) {
			c := callOf(ctx)
			if p, ok := any(in).(presenter); ok {
				p.present(c.presented)
			}
			if p, ok := any(in).(contested); ok {
				c.about = contestOf(p.contest())
			}
			if p, ok := any(in).(coded); ok {
				if err := c.limitCode(p.code()); err != nil {
					return nil, c.refuse(err)
				}
			}
			if err := c.begin(ctx); err != nil {
				return nil, c.refuse(err)
			}
			out, err := use(a, ctx, &c.subject, in)
			if err != nil {
				return nil, c.refuse(c.rejected(err))
			}
			if tag := etag(out); tag != "" {
				c.Header().Set("ETag", tag)
			}
			return &reply[O]{Body: out}, nil
		})
	}
}

// stream is the adapter for routes whose body or answer is no JSON object.
// The use case writes its own answer, once it has called begin.
func stream(use func(*API, *call, *http.Request) error, doc func(*API, *huma.Operation)) func(*API, huma.API, *route) {
	return func(a *API, h huma.API, r *route) {
		op := r.operation()
		a.document(h, r, &op, doc)
		a.HandleFunc(r.pattern(), func(w http.ResponseWriter, req *http.Request) {
			c := callOf(req.Context())
			if err := use(a, c, req); err != nil {
				c.fail(err)
				c.linger()
			}
		})
	}
}

// HandleFunc puts a handler behind the steps that every request goes through.
// It makes API what Huma calls a mux.
func (a *API) HandleFunc(pattern string, h func(http.ResponseWriter, *http.Request)) {
	r := a.routes[plainPattern(pattern)]
	a.mux.HandleFunc(r.pattern(), func(_ http.ResponseWriter, req *http.Request) {
		c := callOf(req.Context())
		c.route, c.aim = r, aimed(req.PathValue("id"))
		if strings.HasPrefix(r.path, "/v1/competitions/") {
			c.about = contestOf(req.PathValue("id"))
		}
		if err := c.admit(req); err != nil {
			c.fail(err)
			return
		}
		h(c, req)
	})
}

// ServeHTTP completes what Huma calls a mux; requests come in through a front.
func (a *API) ServeHTTP(w http.ResponseWriter, r *http.Request) { a.Public().ServeHTTP(w, r) }

// presenter is a request that can be answered a second time: it wants to know
// which secret was presented with it.
type presenter interface{ present(token.Secret) }

// coded is a request whose credential is a one-time code in its body.
type coded interface{ code() string }

// Idem is embedded in requests that create something.
type Idem struct {
	Key    string `header:"Idempotency-Key" doc:"Makes the request repeatable: the same key with the same request is answered alike"`
	secret token.Secret
}

func (i *Idem) present(s token.Secret) { i.secret = s }

// ByID is embedded in requests about one thing.
type ByID struct {
	ID string `path:"id" maxLength:"200" doc:"An id, or a name"`
}

// Paging is embedded in requests for lists.
type Paging struct {
	Limit  int    `query:"limit" minimum:"1" maximum:"1000" default:"100" doc:"Items per page"`
	Cursor string `query:"cursor" maxLength:"200" doc:"next_cursor of the page before"`
}

// None is a request that says nothing.
type None struct{}

func etag(v any) string {
	switch v := v.(type) {
	case api.Token:
		return v.ETag
	case api.User:
		return v.ETag
	case api.Competition:
		return v.ETag
	case api.Job:
		return v.ETag
	}
	return ""
}
