package httpapi

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"reflect"
	"strconv"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"gradegate/api"
)

//go:generate go test -run TestOpenAPI -update .

// newHuma makes the part of Huma that is used: decoding, schemas, documents.
func (a *API) newHuma() huma.API {
	tameHuma()
	config := huma.DefaultConfig("gradegate", "1")
	config.CreateHooks = nil // no $schema in answers
	config.OpenAPIPath, config.DocsPath, config.SchemasPath = "", "", ""
	config.RejectUnknownQueryParameters = true
	format := huma.Format{Marshal: encode, Unmarshal: json.Unmarshal} // the form was checked before
	config.Formats = map[string]huma.Format{"application/json": format, problemType: format}
	config.Info.Description = "Token authority and front door of a grading service. Unknown members of answers must be ignored; unknown members of requests are refused."
	config.Components.SecuritySchemes = map[string]*huma.SecurityScheme{
		"bearer": {Type: "http", Scheme: "bearer", Description: "A token: Authorization: Bearer ggpat_…"},
		"basic":  {Type: "http", Scheme: "basic", Description: "The token as the password, for clients that know netrc only"},
	}
	problem := config.Components.Schemas.Schema(reflect.TypeFor[api.Problem](), false, "Problem")
	problem.AdditionalProperties = true // further members say more
	config.Components.Responses = map[string]*huma.Response{"Problem": {
		Description: "A refusal (RFC 9457)",
		Content:     map[string]*huma.MediaType{problemType: {Schema: &huma.Schema{Ref: "#/components/schemas/Problem"}}},
	}}
	return humago.New(a, config)
}

// operation is how the specification and Huma see a route.
func (r *route) operation() huma.Operation {
	op := huma.Operation{
		OperationID: r.id, Method: r.method, Path: plainPattern(r.path), Summary: r.summary, Tags: []string{r.tag()},
		DefaultStatus: r.status(), MaxBodyBytes: r.bodyLimit() + 1, BodyReadTimeout: -1, // both are seen to before
		Responses: map[string]*huma.Response{"default": {Ref: "#/components/responses/Problem"}},
	}
	if !r.has(open) {
		op.Security = []map[string][]string{{"bearer": {}}, {"basic": {}}}
	}
	op.Responses[strconv.Itoa(r.status())] = &huma.Response{Description: http.StatusText(r.status())}
	return op
}

// plainPattern is a pattern as the specification and Huma write it: they do not
// know names for the rest of a path.
func plainPattern(pattern string) string { return strings.Replace(pattern, "...}", "}", 1) }

// tag is the first word of a path.
func (r *route) tag() string {
	word, _, _ := strings.Cut(strings.TrimPrefix(strings.TrimPrefix(r.path, "/v1"), "/"), "/")
	if strings.HasPrefix(r.path, "/v1/") || strings.HasPrefix(r.path, "/authz/") {
		return word
	}
	return "server"
}

// document adds a route that Huma does not serve.
func (a *API) document(h huma.API, r *route, op *huma.Operation, doc func(*API, *huma.Operation)) {
	for part := range strings.SplitSeq(op.Path, "/") {
		if name, ok := strings.CutPrefix(part, "{"); ok {
			op.Parameters = append(op.Parameters, parameter("path", strings.TrimSuffix(name, "}"), huma.TypeString, true, ""))
		}
	}
	if r.has(creates) {
		op.Parameters = append(op.Parameters, parameter("header", "Idempotency-Key", huma.TypeString, false, "Makes the request repeatable"))
	}
	doc(a, op)
	h.OpenAPI().AddOperation(op)
}

func parameter(in, name, kind string, required bool, text string) *huma.Param {
	return &huma.Param{In: in, Name: name, Required: required, Description: text, Schema: &huma.Schema{Type: kind}}
}

func (a *API) answers(op *huma.Operation, mediaType string, s *huma.Schema) {
	op.Responses[strconv.Itoa(op.DefaultStatus)].Content = map[string]*huma.MediaType{mediaType: {Schema: s}}
}

func ref(name string) *huma.Schema { return &huma.Schema{Ref: "#/components/schemas/" + name} }

func textOf() *huma.Schema { return &huma.Schema{Type: huma.TypeString} }

func binary() *huma.Schema { return &huma.Schema{Type: huma.TypeString, Format: "binary"} }

func textAnswer(a *API, op *huma.Operation) { a.answers(op, "text/plain", textOf()) }

func documentAnswer(a *API, op *huma.Operation) {
	a.answers(op, "application/json", &huma.Schema{Type: huma.TypeObject})
}

func binaryAnswer(a *API, op *huma.Operation) { a.answers(op, "application/octet-stream", binary()) }

func checkpointAnswer(a *API, op *huma.Operation) {
	op.Parameters = append(op.Parameters, parameter("query", "stream", huma.TypeString, false, "use or act (default)"))
	textAnswer(a, op)
}

func healthAnswer(a *API, op *huma.Operation) { a.answers(op, "application/json", ref("Health")) }

func logAnswer(a *API, op *huma.Operation) {
	op.Parameters = append(op.Parameters,
		parameter("query", "offset", huma.TypeInteger, false, "Bytes to leave out"),
		parameter("query", "follow", huma.TypeBoolean, false, "Stay until the job ends"))
	textAnswer(a, op)
}

func submitForm(a *API, op *huma.Operation) {
	a.form(op, "bundle", map[string]*huma.Schema{
		"submitted_by": textOf(), "on_behalf_of": textOf(), "entry": textOf(), "labels": textOf(),
		"label": {Type: huma.TypeArray, Items: textOf()}, "arg": {Type: huma.TypeArray, Items: textOf()},
	}, []string{"bundle"})
	a.answers(op, "application/json", ref("Submitted"))
}

func applyForm(a *API, op *huma.Operation) {
	op.Parameters = append(op.Parameters, parameter("header", "If-Match", huma.TypeString, false, "The ETag that is to be replaced"))
	a.form(op, "files", map[string]*huma.Schema{"spec": textOf()}, []string{"spec"})
	a.answers(op, "application/json", ref("Competition"))
}

// form documents an upload; its file is the last part.
func (a *API) form(op *huma.Operation, file string, members map[string]*huma.Schema, required []string) {
	members[file] = binary()
	op.RequestBody = &huma.RequestBody{Required: true, Content: map[string]*huma.MediaType{"multipart/form-data": {
		Schema: &huma.Schema{Type: huma.TypeObject, Properties: members, Required: required, Description: "The part " + file + " comes last."},
	}}}
}

// authzDoc documents a route that a front serves by itself.
func authzDoc(a *API, h huma.API, r *route) {
	op := r.operation()
	op.Method = get
	op.Description = "Any method. The original method and URI come in X-Original-Method and X-Original-URI, or X-Forwarded-Method and X-Forwarded-Uri. " +
		"Identity header fields of the request are ignored."
	a.document(h, r, &op, func(_ *API, op *huma.Operation) {
		op.Parameters = append(op.Parameters,
			parameter("query", "scope", huma.TypeString, false, "Scope that the token must have"),
			parameter("query", "competition", huma.TypeString, false, "Competition that the token must be good for"))
		fields := map[string]*huma.Param{}
		for _, name := range identityFields {
			fields[name] = &huma.Header{Schema: textOf()}
		}
		op.Responses["200"].Headers = fields
	})
	// The front takes these requests before the mux; what it does not take ends here.
	k := nginx
	if r.path == forward.path() {
		k = forward
	}
	a.mux.HandleFunc(r.path, func(_ http.ResponseWriter, req *http.Request) {
		c := callOf(req.Context())
		if c.door == local {
			c.fail(errNoRoute)
			return
		}
		a.authz(c.ResponseWriter, req, k)
	})
}

// finishSpec adds what no JSON route mentions and writes the document.
func (a *API) finishSpec(h huma.API) error {
	schemas := h.OpenAPI().Components.Schemas
	for _, t := range []reflect.Type{reflect.TypeFor[api.Health](), reflect.TypeFor[api.Submitted](), reflect.TypeFor[api.Competition]()} {
		schemas.Schema(t, true, t.Name())
	}
	a.spec = h.OpenAPI()
	loosen(a.spec)
	if a.PublicURL != "" {
		a.spec.Servers = []*huma.Server{{URL: strings.TrimSuffix(a.PublicURL, "/")}}
	}
	text, err := json.Marshal(a.spec)
	if err != nil {
		return fmt.Errorf("openapi: %w", err)
	}
	var pretty bytes.Buffer
	if err := json.Indent(&pretty, text, "", "  "); err != nil {
		return fmt.Errorf("openapi: %w", err)
	}
	pretty.WriteByte('\n')
	a.text = pretty.Bytes()
	return nil
}

// loosen allows further members wherever a schema is not that of a request:
// clients must ignore what they do not know, and those that are generated can
// do so only if the document says it.
func loosen(spec *huma.OpenAPI) {
	asked := map[string]bool{}
	for _, item := range spec.Paths {
		for _, op := range []*huma.Operation{item.Get, item.Post, item.Put, item.Delete} {
			if op == nil || op.RequestBody == nil {
				continue
			}
			for _, m := range op.RequestBody.Content {
				asked[strings.TrimPrefix(m.Schema.Ref, "#/components/schemas/")] = true
			}
		}
	}
	for name, s := range spec.Components.Schemas.Map() {
		if !asked[name] {
			s.AdditionalProperties = true
		}
	}
}
