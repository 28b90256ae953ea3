package api

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"mime/multipart"
	"net/http"
	"slices"
)

// Upload is a submission to be sent.
type Upload struct {
	// Open opens the content from its beginning; it is called again if the
	// request has to be sent once more.
	Open        func() (io.ReadCloser, error)
	Name        string
	OnBehalfOf  string // name or id of who is to own the job, by their consent
	SubmittedBy string // free text
	Labels      map[string]string
	Entry       string
	Args        []string // for the program
	// Progress is told how many bytes have been sent; may be nil.
	Progress func(sent int64)
}

// Submit hands in a bundle.
func (c *Client) Submit(ctx context.Context, competition string, u Upload) (Submitted, error) {
	fields := [][2]string{}
	add := func(name, value string) {
		if value != "" {
			fields = append(fields, [2]string{name, value})
		}
	}
	add("submitted_by", u.SubmittedBy)
	add("on_behalf_of", u.OnBehalfOf)
	add("entry", u.Entry)
	for _, k := range slices.Sorted(maps.Keys(u.Labels)) {
		add("label", k+"="+u.Labels[k])
	}
	for _, a := range u.Args {
		fields = append(fields, [2]string{"arg", a}) // an empty one is one, too
	}
	var out Submitted
	err := c.upload(ctx, call{method: http.MethodPost, path: "/v1/competitions/" + seg(competition) + "/jobs", creates: true},
		fields, "bundle", u.Name, u.Open, u.Progress, &out)
	return out, err
}

// ApplyCompetition makes or changes a competition. open gives its files as a
// bundle; nil leaves them as they are. A spec with an ETag is refused if
// somebody else changed the competition since.
func (c *Client) ApplyCompetition(ctx context.Context, spec Competition, open func() (io.ReadCloser, error)) (Competition, error) {
	k := call{method: http.MethodPut, path: "/v1/competitions/" + seg(spec.Name), header: http.Header{}}
	if spec.ETag != "" {
		k.header.Set("If-Match", spec.ETag)
	}
	text, err := json.Marshal(spec)
	if err != nil {
		return Competition{}, fmt.Errorf("encoding the competition: %w", err)
	}
	var out Competition
	err = c.upload(ctx, k, [][2]string{{"spec", string(text)}}, "files", "files.tar.gz", open, nil, &out)
	return out, err
}

// upload streams a multipart body; nothing is held in memory.
func (c *Client) upload(ctx context.Context, k call, fields [][2]string, part, name string,
	open func() (io.ReadCloser, error), progress func(int64), out any,
) error {
	key := ""
	if k.creates {
		key = rand.Text()
	}
	for try := 0; ; try++ {
		err := c.uploadOnce(ctx, k, key, fields, part, name, open, progress, out)
		if err == nil || !c.again(ctx, k, err, try) {
			return err
		}
	}
}

func (c *Client) uploadOnce(ctx context.Context, k call, key string, fields [][2]string, part, name string,
	open func() (io.ReadCloser, error), progress func(int64), out any,
) error {
	var src io.ReadCloser
	if open != nil {
		var err error
		if src, err = open(); err != nil {
			return fmt.Errorf("opening what is to be sent: %w", err)
		}
		defer func() { _ = src.Close() }()
	}
	r, w := io.Pipe()
	form := multipart.NewWriter(w)
	go func() { _ = w.CloseWithError(writeForm(form, fields, part, name, src, progress)) }()
	defer func() { _ = r.Close() }()
	// Asking first lets a refusal arrive whole, and before the upload.
	header := http.Header{"Content-Type": {form.FormDataContentType()}, "Expect": {"100-continue"}}
	maps.Copy(header, k.header)
	k.header = header
	resp, err := c.send(ctx, k, r, false, key)
	if err != nil {
		return err
	}
	return c.decode(resp, out)
}

// sourceError is a failure to read what is to be sent. The transport hands it
// back as if the connection had failed.
type sourceError struct{ err error }

func (e *sourceError) Error() string { return e.err.Error() }
func (e *sourceError) Unwrap() error { return e.err }

func writeForm(form *multipart.Writer, fields [][2]string, part, name string, src io.Reader, progress func(int64)) error {
	for _, f := range fields {
		if err := form.WriteField(f[0], f[1]); err != nil {
			return err
		}
	}
	if src != nil {
		p, err := form.CreateFormFile(part, name)
		if err != nil {
			return err
		}
		if _, err := io.Copy(p, &counter{r: src, tell: progress}); err != nil {
			return err
		}
	}
	return form.Close()
}

// counter tells how many bytes went through.
type counter struct {
	r    io.Reader
	n    int64
	tell func(int64)
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	if err != nil && !errors.Is(err, io.EOF) {
		err = &sourceError{fmt.Errorf("reading what is to be sent: %w", err)}
	}
	if c.tell != nil && n > 0 {
		c.tell(c.n)
	}
	return n, err
}
