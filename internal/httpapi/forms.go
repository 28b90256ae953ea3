package httpapi

import (
	"encoding/json"
	"errors"
	"io"
	"mime/multipart"
	"net/http"
	"strings"
	"time"

	"gradegate/internal/fault"
)

// Limits of a form's small fields, and of how slowly it may come in.
const (
	maxFields = 128
	maxField  = 64 << 10
	formTime  = 30 * time.Second
	formRate  = 8 << 10 // bytes per second, beyond formTime
)

// form is a multipart upload that is read as it arrives: small fields first,
// then one file. It is the reader of that file.
type form struct {
	parts *multipart.Reader
	file  *multipart.Part
	limit int64
}

// openForm begins to read an upload of at most limit bytes.
func (c *call) openForm(r *http.Request, limit int64) (*form, error) {
	const overhead = 1 << 20 // fields, boundaries and headers
	if r.ContentLength > limit+overhead {
		return nil, tooLarge(limit)
	}
	body := &patient{body: r.Body, control: http.NewResponseController(c.ResponseWriter), start: time.Now()}
	c.upload = body
	r.Body = http.MaxBytesReader(c.ResponseWriter, body, limit+overhead)
	parts, err := r.MultipartReader()
	if err != nil {
		return nil, fault.New(fault.Unsupported, "content_type", "An upload is multipart/form-data.").
			WithFix("curl -F submitted_by=NAME -F bundle=@FILE …")
	}
	return &form{parts: parts, limit: limit}, nil
}

func tooLarge(limit int64) error {
	return fault.New(fault.TooLarge, "bundle_too_large", "The upload is larger than %d MiB.", limit>>20).
		WithFix("Leave out data and caches; the competition's own files are there already.")
}

// patient reads a body whose sender must keep up a small rate. A slow line is
// served; one that holds a connection for nothing is not.
type patient struct {
	body    io.ReadCloser
	control *http.ResponseController
	start   time.Time
	n       int64
	end     time.Time // when set, no read lasts longer
}

func (p *patient) Read(b []byte) (int, error) {
	deadline := p.start.Add(formTime + time.Duration(p.n/formRate)*time.Second)
	if !p.end.IsZero() {
		deadline = p.end
	}
	_ = p.control.SetReadDeadline(deadline) // not every test writer has one
	n, err := p.body.Read(b)
	p.n += int64(n)
	if errors.Is(err, io.EOF) {
		_ = p.control.SetReadDeadline(time.Time{}) // left standing, it would end the request
	}
	return n, err
}

func (p *patient) Close() error { return p.body.Close() }

// How much of a refused upload is taken in and thrown away. A client that is
// still sending when its connection is reset never gets to read why.
const lingerBytes = 64 << 20

// linger sends a refusal on its way and hears the sender out for a while.
func (c *call) linger() {
	if c.upload == nil {
		return
	}
	_ = http.NewResponseController(c.ResponseWriter).Flush() // not every test writer can
	c.upload.end = time.Now().Add(c.api.bodyTime)
	buffer := make([]byte, 32<<10)
	for n := 0; n < lingerBytes; {
		k, err := c.upload.Read(buffer)
		if n += k; err != nil {
			return
		}
	}
}

// fields are the small parts of a form, by name.
type fields map[string][]string

// fields reads up to the part that is the file, or to the end.
func (f *form) fields(file string) (fields, error) {
	out := fields{}
	for range maxFields {
		p, err := f.parts.NextPart()
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return nil, f.trouble(err)
		}
		if p.FormName() == file {
			f.file = p
			return out, nil
		}
		text, err := io.ReadAll(io.LimitReader(p, maxField+1))
		if err != nil {
			return nil, f.trouble(err)
		}
		if len(text) > maxField {
			return nil, fault.New(fault.TooLarge, "field_too_large", "A field of the form is larger than %d KiB.", maxField>>10).
				WithFix("Only the part %q may be large.", file)
		}
		out[p.FormName()] = append(out[p.FormName()], string(text))
	}
	return nil, fault.New(fault.Invalid, "form_too_long", "The form has more than %d fields.", maxFields).WithFix("Send fewer.")
}

// Read is the file's content. A part behind the file is an error: what it says
// would come too late to be heeded.
func (f *form) Read(b []byte) (int, error) {
	n, err := f.file.Read(b)
	switch {
	case err == nil:
		return n, nil
	case !errors.Is(err, io.EOF):
		return n, f.trouble(err)
	}
	if _, next := f.parts.NextPart(); next == nil {
		return n, fault.New(fault.Invalid, "form_order", "The file is the last part of a form.").WithFix("Put the fields before the file.")
	} else if !errors.Is(next, io.EOF) {
		return n, f.trouble(next)
	}
	return n, io.EOF
}

func (f *form) trouble(err error) error {
	var tooMany *http.MaxBytesError
	if errors.As(err, &tooMany) {
		return tooLarge(f.limit)
	}
	if known := new(fault.Error); errors.As(err, &known) {
		return known
	}
	return bodyFault(err, f.limit)
}

func (f fields) one(name string) string {
	if v := f[name]; len(v) > 0 {
		return v[0]
	}
	return ""
}

// only refuses fields that are unknown, or given twice where one counts.
func (f fields) only(single string, many ...string) error {
	for name, values := range f {
		known, once := false, false
		for _, s := range strings.Fields(single) {
			if s == name {
				known, once = true, true
			}
		}
		for _, m := range many {
			known = known || m == name
		}
		if !known {
			return fault.New(fault.Invalid, "field_unknown", "The form has a field that nobody reads: %s.", place(name)).
				WithFix("Use some of: %s; and last of all the file", strings.Join(append(strings.Fields(single), many...), ", "))
		}
		if once && len(values) > 1 {
			return fault.New(fault.Invalid, "field_twice", "The form has a field twice: %s.", place(name)).WithFix("Send it once.")
		}
	}
	return nil
}

// labels reads label=k=v fields, and labels={…} for those who have JSON at hand.
func (f fields) labels() (map[string]string, error) {
	out := map[string]string{}
	bad := fault.New(fault.Invalid, "labels_invalid", "A label is a name and a value.").WithFix("label=run=baseline, or labels={\"run\": \"baseline\"}")
	if text := f.one("labels"); text != "" {
		if err := checkJSON([]byte(text), maxStrings); err != nil {
			return nil, err
		}
		if err := json.Unmarshal([]byte(text), &out); err != nil {
			return nil, bad
		}
	}
	for _, l := range f["label"] {
		k, v, ok := strings.Cut(l, "=")
		if _, twice := out[k]; !ok || twice {
			return nil, bad
		}
		out[k] = v
	}
	if len(out) == 0 {
		return nil, nil
	}
	return out, nil
}
