package cli

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/csv"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"gradegate/api"
	"gradegate/internal/fault"
)

// columns are what the columns of an earlier system's table are called.
type columns struct{ user, sha256, name, expires string }

// usual are the names that are looked for where none is given.
var usual = map[string][]string{
	"user":    {"user", "username", "user_name", "owner", "login"},
	"sha256":  {"sha256", "token_sha256", "token_hash", "hashed_token", "hash", "digest"},
	"name":    {"name", "label", "description"},
	"expires": {"expires_at", "expires", "expiry", "expiration", "valid_until"},
}

// readTable reads the tokens of an earlier system from a SQLite file or a CSV.
func readTable(ctx context.Context, path, table string, c columns) ([]api.ImportToken, error) {
	head := make([]byte, 16)
	f, err := os.Open(path)
	if err != nil {
		return nil, unreadable(path, err)
	}
	defer func() { _ = f.Close() }() // read only
	n, err := io.ReadFull(f, head)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
		return nil, unreadable(path, err)
	}
	var rows [][]string
	if bytes.Equal(head[:n], []byte("SQLite format 3\x00")) {
		rows, err = readSQLite(ctx, path, table)
	} else {
		rows, err = readCSV(io.MultiReader(bytes.NewReader(head[:n]), f))
	}
	if err != nil {
		return nil, fault.New(fault.Invalid, "import_unreadable", "%s cannot be read as a table: %v.", path, err).
			WithFix("Give a CSV with a header, such as user,sha256,name,expires_at, or a SQLite file and --table.")
	}
	if len(rows) == 0 {
		return nil, fault.New(fault.Invalid, "import_empty", "%s is empty.", path).WithFix("Its first line must be a header, such as user,sha256,name,expires_at.")
	}
	return tokensOf(rows[0], rows[1:], c)
}

func unreadable(path string, err error) error {
	return fault.Wrap(fault.Invalid, "import_unreadable", fmt.Sprintf("%s cannot be read: %v.", path, plainly(err)), err).
		WithFix("Name a CSV with a header, such as user,sha256,name,expires_at, or a SQLite file.")
}

func readCSV(r io.Reader) ([][]string, error) {
	text, err := io.ReadAll(r)
	if err != nil {
		return nil, err
	}
	in := csv.NewReader(bytes.NewReader(bytes.TrimPrefix(text, []byte("\ufeff"))))
	in.TrimLeadingSpace = true
	return in.ReadAll()
}

// readSQLite reads a whole table, the names of its columns first. Blobs become
// hexadecimal digits. The file is never written.
func readSQLite(ctx context.Context, path, table string) ([][]string, error) {
	db, err := sql.Open("sqlite", (&url.URL{Scheme: "file", Opaque: url.PathEscape(path), RawQuery: "mode=ro"}).String())
	if err != nil {
		return nil, err
	}
	defer func() { _ = db.Close() }() // read only
	rows, err := db.QueryContext(ctx, `SELECT * FROM "`+strings.ReplaceAll(table, `"`, `""`)+`"`)
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }() // its error is Err's
	names, err := rows.Columns()
	if err != nil {
		return nil, err
	}
	out := [][]string{names}
	for rows.Next() {
		values, to := make([]any, len(names)), make([]any, len(names))
		for i := range values {
			to[i] = &values[i]
		}
		if err := rows.Scan(to...); err != nil {
			return nil, err
		}
		line := make([]string, len(names))
		for i, v := range values {
			line[i] = cell(v)
		}
		out = append(out, line)
	}
	return out, rows.Err()
}

func cell(v any) string {
	switch v := v.(type) {
	case nil:
		return ""
	case []byte:
		return hex.EncodeToString(v)
	case time.Time:
		return v.UTC().Format(time.RFC3339)
	}
	return fmt.Sprint(v)
}

// tokensOf picks the columns that matter.
func tokensOf(header []string, rows [][]string, c columns) ([]api.ImportToken, error) {
	at := map[string]int{}
	for what, given := range map[string]string{"user": c.user, "sha256": c.sha256, "name": c.name, "expires": c.expires} {
		i, err := columnAt(header, what, given)
		if err != nil {
			return nil, err
		}
		at[what] = i
	}
	var out []api.ImportToken
	good := 0
	for n, row := range rows {
		get := func(what string) string {
			if i := at[what]; i >= 0 && i < len(row) {
				return strings.TrimSpace(row[i])
			}
			return ""
		}
		t := api.ImportToken{User: get("user"), SHA256: strings.ToLower(get("sha256")), Name: get("name")}
		if raw, err := hex.DecodeString(t.SHA256); err == nil && len(raw) == 32 {
			good++
		} else {
			t.SHA256 = "" // what stands there may be a secret: it does not leave this machine
		}
		if end := get("expires"); end != "" {
			when, err := readEnd(end)
			if err != nil {
				return nil, fault.New(fault.Invalid, "time_invalid", "Row %d: %q is no point in time.", n+1, end).WithFix("Use 2027-01-31T00:00:00Z, 2027-01-31 or seconds since 1970.")
			}
			t.ExpiresAt = &when
		}
		out = append(out, t)
	}
	if good == 0 && len(rows) > 0 {
		return nil, fault.New(fault.Invalid, "sha256_invalid", "The column for SHA-256 does not hold 64 hexadecimal digits in any row.").
			WithFix("Name the right column (--sha256 COLUMN). Secrets themselves are never imported.")
	}
	return out, nil
}

// columnAt finds the column for something; -1: there is none, and none is needed.
func columnAt(header []string, what, given string) (int, error) {
	wanted := usual[what]
	if given != "" {
		wanted = []string{given}
	}
	for i, h := range header {
		if slices.Contains(wanted, strings.ToLower(strings.TrimSpace(h))) || given != "" && h == given {
			return i, nil
		}
	}
	if given == "" && (what == "name" || what == "expires") {
		return -1, nil
	}
	return 0, fault.New(fault.Invalid, "import_column", "There is no column %s among: %s.", strings.Join(wanted, " or "), strings.Join(header, ", ")).
		WithFix("Name it: --%s COLUMN", what)
}

// readEnd reads a point in time as tables have it; without a zone it is UTC.
func readEnd(s string) (time.Time, error) {
	if n, err := strconv.ParseInt(s, 10, 64); err == nil {
		return time.Unix(n, 0).UTC(), nil
	}
	for _, form := range []string{time.RFC3339Nano, "2006-01-02 15:04:05.999999999-07:00", "2006-01-02 15:04:05.999999999", "2006-01-02T15:04:05.999999999", time.DateOnly} {
		if t, err := time.Parse(form, s); err == nil {
			return t.UTC(), nil
		}
	}
	return time.Time{}, errors.New("no form of time that is known")
}
