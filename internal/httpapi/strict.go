package httpapi

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net"
	"net/http"
	"strings"
	"time"
	"unicode/utf8"

	"gradegate/internal/audit"
	"gradegate/internal/fault"
)

// Limits of a JSON body. They bound what decoding can cost (CVE-2025-6203 is
// what happens without), and no request of ours comes near them.
const (
	maxDepth   = 32
	maxStrings = 1000
)

// readJSON reads a JSON body whole and checks its form, so that what decodes
// it later sees one value that all programs read alike.
func (c *call) readJSON(r *http.Request) error {
	if !c.route.has(jsonBody) || r.Method == http.MethodGet || r.Method == http.MethodHead {
		return nil
	}
	limit := c.route.bodyLimit()
	data, err := io.ReadAll(http.MaxBytesReader(c.ResponseWriter, r.Body, limit))
	if err != nil {
		return bodyFault(err, limit)
	}
	// The front set a deadline; left standing, it would end the request.
	_ = http.NewResponseController(c.ResponseWriter).SetReadDeadline(time.Time{}) // not every test writer has one
	r.Body = io.NopCloser(bytes.NewReader(data))
	if len(data) == 0 {
		return nil
	}
	kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || kind != "application/json" {
		return fault.New(fault.Unsupported, "content_type", "The body must be JSON and say so.").WithFix("Content-Type: application/json")
	}
	most := maxStrings
	if c.route.has(bulky) {
		most += maxStrings // a list of a thousand, and the names around it
	}
	if err := checkJSON(data, most); err != nil || !c.route.has(bodiless) {
		return err
	}
	if len(bytes.Trim(data, "{} \t\r\n")) > 0 { // what is JSON and nothing else is an empty object
		return errNoMembers
	}
	return nil
}

func bodyFault(err error, limit int64) error {
	var tooLarge *http.MaxBytesError
	var slow net.Error
	switch {
	case errors.As(err, &tooLarge):
		return fault.New(fault.TooLarge, "body_too_large", "The body is larger than %d KiB.", limit>>10).WithFix("Send less at a time.")
	case errors.As(err, &slow) && slow.Timeout():
		return fault.New(fault.Invalid, "body_timeout", "The body did not arrive in time.").WithFix("Send it again.")
	}
	return fault.Wrap(fault.Invalid, "body_cut", "The body ended too early.", err).WithFix("Send it again.")
}

func badJSON(code, detail, fix string) *fault.Error {
	return fault.New(fault.Invalid, code, detail).WithFix(fix)
}

var (
	errNotJSON   = badJSON("json_malformed", "The body is no JSON.", "Send one JSON object.")
	errTrailing  = badJSON("json_trailing", "Something follows the JSON value.", "Send one JSON object and nothing behind it.")
	errMember    = badJSON("request_invalid", "A member of the JSON is unknown or has the wrong type.", "See /openapi.json for what it may hold.")
	errNoMembers = badJSON("request_invalid", "The body has members, and this request takes none.", "Send it without a body.")
	// What null means is for each reader to guess, and some would sweep for real
	// where {"dry_run": null} was sent.
	errNull    = badJSON("request_invalid", "A member of the JSON is null.", "Give it a value, or leave it out.")
	errComplex = badJSON("json_too_complex", "The JSON is nested too deeply, or has too many members and strings.", "Send less at a time.")
)

// checkJSON walks through a body once: one value, no member twice, bounded
// depth, and at most that many strings, names included.
func checkJSON(data []byte, most int) error {
	if !utf8.Valid(data) {
		return errNotJSON
	}
	w := walker{d: json.NewDecoder(bytes.NewReader(data)), left: most}
	return w.all()
}

func (w *walker) all() error {
	w.d.UseNumber() // a number too large for us is the schema's business
	if err := w.value(0); err != nil {
		return err
	}
	if _, err := w.d.Token(); !errors.Is(err, io.EOF) {
		return errTrailing
	}
	return nil
}

type walker struct {
	d    *json.Decoder
	left int
	// lower: member names are ours, and those have no capitals. A decoder that
	// ignores case must not be the one to say so.
	lower bool
}

func (w *walker) next() (json.Token, error) {
	t, err := w.d.Token()
	if err != nil {
		return nil, errNotJSON
	}
	if _, ok := t.(string); ok {
		if w.left--; w.left < 0 {
			return nil, errComplex
		}
	}
	return t, nil
}

func (w *walker) value(depth int) error {
	t, err := w.next()
	if err != nil {
		return err
	}
	open, ok := t.(json.Delim)
	if !ok {
		if t == nil && depth > 0 {
			return errNull
		}
		return nil
	}
	if depth == maxDepth {
		return errComplex
	}
	seen := map[string]bool{}
	for w.d.More() {
		if open == '{' {
			name, err := w.next()
			if err != nil {
				return err
			}
			key, _ := name.(string)
			if seen[key] {
				return badJSON("json_duplicate_key", "The JSON has a member twice: "+audit.Scrub(audit.Clean(key, 40))+".", "Give each member once.")
			}
			seen[key] = true
			if w.lower && key != strings.ToLower(key) {
				return errMember
			}
		}
		if err := w.value(depth + 1); err != nil {
			return err
		}
	}
	_, err = w.next() // the closing bracket
	return err
}

// decodeStrictly decodes JSON that does not go through Huma, as strictly.
func decodeStrictly(data []byte, v any) error {
	if !utf8.Valid(data) {
		return errNotJSON
	}
	w := walker{d: json.NewDecoder(bytes.NewReader(data)), left: maxStrings, lower: true}
	if err := w.all(); err != nil {
		return err
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return errMember.Caused(err)
	}
	return nil
}

// encode writes JSON without the escapes that only HTML needs.
func encode(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	return e.Encode(v)
}
