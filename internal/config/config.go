// Package config is everything that can be configured, in one documented
// struct. It is filled from defaults, a strict YAML file, the environment and
// flags, in that order; an unknown key is an error with its line. With no
// configuration at all the program works.
package config

import (
	"bytes"
	"encoding"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"go.yaml.in/yaml/v3"

	"gradegate/internal/fault"
)

// Config is the configuration of a server. The environment variable of a
// member is GRADEGATE_ and its path in capitals, such as GRADEGATE_LEDGER_DIR.
type Config struct {
	Data        string `yaml:"data" doc:"Folder for everything the server keeps."`
	Listen      string `yaml:"listen" doc:"Address of the public API; port 0 picks a free one."`
	AdminListen string `yaml:"admin_listen" doc:"Address of the administrators' API and metrics; empty: the public one serves it."`
	PublicURL   string `yaml:"public_url" doc:"How clients reach the server, such as https://grade.example.org."`
	Insecure    bool   `yaml:"insecure" doc:"Allow plain HTTP on an address that is not loopback."`

	TLS struct {
		Cert string `yaml:"cert" doc:"PEM file with the certificate chain; read again when it changes."`
		Key  string `yaml:"key" doc:"PEM file with the private key."`
	} `yaml:"tls"`

	TrustedProxies []string `yaml:"trusted_proxies" doc:"Networks whose forwarding header is believed; nobody by default."`
	ProxyHeader    string   `yaml:"proxy_header" doc:"The one header that trusted proxies set."`

	FailuresLog string `yaml:"failures_log" doc:"Where failed authentications are written for fail2ban: a file, or stderr. Empty: nowhere."`

	KeyFile    string `yaml:"key_file" doc:"The root key; made at the first start. Empty: root.key in the data folder."`
	PepperFile string `yaml:"pepper_file" doc:"Peppers for the digests of secrets, made by gradegate pepper add. Empty: none."`
	Ledger     struct {
		Dir string `yaml:"dir" doc:"Folder of the ledger; put it on another disk. Empty: ledger in the data folder."`
	} `yaml:"ledger"`
	Database struct {
		Tokens string `yaml:"tokens" doc:"postgres:// URL of the tokens database; empty: SQLite in the data folder."`
		Jobs   string `yaml:"jobs" doc:"postgres:// URL of the jobs database; empty: SQLite in the data folder."`
	} `yaml:"database"`
	Audit struct {
		Dir    string `yaml:"dir" doc:"Folder of the audit trail. Empty: audit in the data folder."`
		Second string `yaml:"second" doc:"A second folder for it, on another disk."`
		Sync   string `yaml:"sync" doc:"normal: reads are recorded with the kernel and synced within 100 ms; strict: every line is synced before the answer."`
	} `yaml:"audit"`
	Retention struct {
		Tokens Duration `yaml:"tokens" doc:"How long what is known of an ended token stays in the database; after that it is in the archive's segments."`
		Uses   Duration `yaml:"uses" doc:"How long the trail keeps who used what when."`
		Acts   Duration `yaml:"acts" doc:"How long the trail keeps who changed what when."`
	} `yaml:"retention"`
	Archive struct {
		Dir string `yaml:"dir" doc:"Folder of the archive's segments. Empty: archive in the data folder."`
	} `yaml:"archive"`
	Executor struct {
		Kind  string `yaml:"kind" doc:"Where jobs run: local."`
		Local struct {
			Unsafe bool     `yaml:"unsafe" doc:"Run programs without isolation where none is to be had."`
			GPUs   []string `yaml:"gpus" doc:"Ids of the GPUs that are handed out."`
			Slots  int      `yaml:"slots" doc:"Jobs at a time; 0: one for each processor."`
		} `yaml:"local"`
	} `yaml:"executor"`
	Policy struct {
		MaxPerUser  int      `yaml:"max_per_user" doc:"Personal tokens that one user may have."`
		Lifetime    Duration `yaml:"lifetime" doc:"Lifetime of a personal token unless another is asked for."`
		MaxLifetime Duration `yaml:"max_lifetime" doc:"The most that a token and its successors can live."`
	} `yaml:"policy"`
	Limits struct {
		Reads   int `yaml:"reads" doc:"Reading requests a minute with one token; a user has three times that."`
		Changes int `yaml:"changes" doc:"Changing requests a minute with one token."`
		Submits int `yaml:"submits" doc:"Submitted jobs a minute with one token."`
		Cancels int `yaml:"cancels" doc:"Cancelled jobs a minute with one token."`
		// A proxy asks about every file of a page, and grading clients poll: this
		// one only stops what has run away.
		Verifies int `yaml:"verifies" doc:"Questions of proxies a minute about one token."`
	} `yaml:"limits"`
}

// Default is the configuration of a server that nobody configured.
func Default() Config {
	var c Config
	c.Data, c.Listen, c.ProxyHeader = "gradegate-data", "127.0.0.1:8080", "X-Forwarded-For"
	c.Audit.Sync, c.Executor.Kind = "normal", "local"
	c.Retention.Tokens = Duration(365 * 24 * time.Hour)
	c.Retention.Uses, c.Retention.Acts = Duration(400*24*time.Hour), Duration(2555*24*time.Hour)
	c.Policy.MaxPerUser, c.Policy.Lifetime, c.Policy.MaxLifetime = 1, Duration(90*24*time.Hour), Duration(365*24*time.Hour)
	c.Limits.Reads, c.Limits.Changes, c.Limits.Submits, c.Limits.Cancels, c.Limits.Verifies = 1200, 600, 120, 600, 6_000_000
	return c
}

// Origins says for each member that is not a default where its value is from.
type Origins map[string]string

// Load reads the configuration: file (may be empty) over the defaults, then
// the environment. It checks nothing but the form; call Check.
func Load(file string, env []string) (Config, Origins, error) {
	c, origins := Default(), Origins{}
	if file != "" {
		if err := c.readFile(file, origins); err != nil {
			return c, origins, err
		}
	}
	if err := c.readEnv(env, origins); err != nil {
		return c, origins, err
	}
	return c, origins, nil
}

func (c *Config) readFile(file string, origins Origins) error {
	data, err := os.ReadFile(file)
	if err != nil {
		return fault.Wrap(fault.Invalid, "config_missing", "The configuration file cannot be read: "+err.Error()+".", err).
			WithFix("Name another one with --config, or none.")
	}
	dec := yaml.NewDecoder(bytes.NewReader(data))
	dec.KnownFields(true)
	err = dec.Decode(c)
	if errors.Is(err, io.EOF) {
		return nil
	}
	if err != nil {
		return fileMistake(file, data, err)
	}
	if err := dec.Decode(new(any)); !errors.Is(err, io.EOF) {
		return fault.New(fault.Invalid, "config_invalid", "%s: a second document follows after ---, and it would be ignored.", file).
			WithFix("Mend %s: put everything before the ---, or remove the ---.", file)
	}
	var set map[string]any
	_ = yaml.Unmarshal(data, &set) // it was just read
	note(set, "", file, origins)
	return nil
}

func note(set map[string]any, prefix, origin string, origins Origins) {
	for k, v := range set {
		if inner, ok := v.(map[string]any); ok {
			note(inner, prefix+k+".", origin, origins)
			continue
		}
		origins[prefix+k] = origin
	}
}

const envPrefix = "GRADEGATE_"

// Variable is a variable of the environment that is no setting of the server's.
type Variable struct{ Name, Doc string }

// Client are the variables of the command line, and Job those that a submitted
// program is given. A job's GRADEGATE_DATA is no folder of ours, but no server
// runs there.
var (
	Client = []Variable{
		{envPrefix + "URL", "The server to talk to, such as https://grade.example.org."},
		{envPrefix + "HOST", "The same; GRADEGATE_URL comes first."},
		{envPrefix + "TOKEN", "The token to use."},
		{envPrefix + "TOKEN_FILE", "File with the token to use; GRADEGATE_TOKEN comes first."},
		{envPrefix + "CA_FILE", "PEM file with the authority that signed the server's certificate."},
		{envPrefix + "CONFIG", "Configuration file of serve and check-config; --config comes first."},
	}
	Job = []Variable{
		{envPrefix + "JOB", "The job's id."},
		{envPrefix + "DATA", "Folder with the public files of the competition; read only."},
		{envPrefix + "OUTPUT", "Folder for what is graded: predictions.csv."},
		{envPrefix + "RUN_TOKEN_FILE", "File with the job's own token."},
	}
)

// foreign reports whether a variable is no setting of the server's: one of those
// above, or of those that Kubernetes makes in every pod for a service named
// gradegate.
func foreign(short string) bool {
	is := func(v Variable) bool { return v.Name == envPrefix+short && short != "DATA" }
	return slices.ContainsFunc(Client, is) || slices.ContainsFunc(Job, is) ||
		short == "PORT" || strings.HasPrefix(short, "PORT_") || strings.HasPrefix(short, "SERVICE_")
}

func (c *Config) readEnv(env []string, origins Origins) error {
	values := map[string]string{}
	for _, kv := range env {
		name, value, _ := strings.Cut(kv, "=")
		if short, ok := strings.CutPrefix(name, envPrefix); ok && !foreign(short) {
			values[short] = value
		}
	}
	var bad error
	c.walk(func(path string, v reflect.Value, _ string) {
		name := variable(path)
		short := strings.TrimPrefix(name, envPrefix)
		text, ok := values[short]
		if !ok {
			return
		}
		delete(values, short)
		origins[path] = name
		if err := setText(v, text); err != nil && bad == nil {
			bad = fault.Wrap(fault.Invalid, "config_invalid", name+": "+sentence(err), err).WithFix("Correct %s, or unset it.", name)
		}
	})
	for _, name := range slices.Sorted(maps.Keys(values)) {
		if bad == nil {
			bad = fault.New(fault.Invalid, "config_unknown", "There is no setting for the variable %s%s.", envPrefix, name).
				WithFix("Unset it. Without it, gradegate check-config lists every setting; ledger.dir is %sLEDGER_DIR, and so on.", envPrefix)
		}
	}
	return bad
}

// variable is the one that sets a member.
func variable(path string) string {
	return envPrefix + strings.ToUpper(strings.ReplaceAll(path, ".", "_"))
}

// formOf is what a member takes, in words.
func formOf(v reflect.Value) string {
	switch v.Interface().(type) {
	case []string:
		return "list; in a variable with commas between"
	case bool:
		return "true or false"
	case int:
		return "whole number"
	case Duration:
		return "span, such as 90d or 12h"
	}
	return "text"
}

// setText gives a member the value that a variable holds. A list is separated
// by commas.
func setText(v reflect.Value, text string) error {
	switch p := v.Addr().Interface().(type) {
	case *string:
		*p = text
		return nil
	case *[]string:
		*p = nil
		for item := range strings.SplitSeq(text, ",") {
			if item = strings.TrimSpace(item); item != "" {
				*p = append(*p, item)
			}
		}
		return nil
	case *bool:
		b, err := strconv.ParseBool(text)
		if err != nil {
			return fmt.Errorf("%q is neither true nor false", text)
		}
		*p = b
		return nil
	case *int:
		n, err := strconv.Atoi(text)
		if err != nil {
			return fmt.Errorf("%q is no number", text)
		}
		*p = n
		return nil
	case encoding.TextUnmarshaler:
		return p.UnmarshalText([]byte(text))
	}
	return fmt.Errorf("a %s cannot be set by a variable", v.Type())
}

// walk visits every member with its path, such as "ledger.dir".
func (c *Config) walk(visit func(path string, v reflect.Value, doc string)) {
	var into func(prefix string, v reflect.Value)
	into = func(prefix string, v reflect.Value) {
		for i := range v.NumField() {
			f := v.Type().Field(i)
			path := prefix + f.Tag.Get("yaml")
			if f.Type.Kind() == reflect.Struct {
				into(path+".", v.Field(i))
				continue
			}
			visit(path, v.Field(i), f.Tag.Get("doc"))
		}
	}
	into("", reflect.ValueOf(c).Elem())
}

// Setting is one member with its value, where it comes from and what it means.
type Setting struct {
	Name   string `json:"name"`
	Env    string `json:"env"`  // the variable that sets it
	Form   string `json:"form"` // what it takes
	Value  string `json:"value"`
	Origin string `json:"origin"`
	Doc    string `json:"doc"`
}

// Settings lists every setting. Passwords inside of URLs are left out.
func (c Config) Settings(origins Origins) (out []Setting) {
	c.walk(func(path string, v reflect.Value, doc string) {
		origin := origins[path]
		if origin == "" {
			origin = "default"
		}
		out = append(out, Setting{Name: path, Env: variable(path), Form: formOf(v), Value: shown(v), Origin: origin, Doc: doc})
	})
	return out
}

// Describe writes every setting for people, one on each line.
func (c Config) Describe(w io.Writer, origins Origins) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	var err error
	for _, s := range c.Settings(origins) {
		if _, e := fmt.Fprintf(t, "%s\t%s\t(%s)\t%s\n", s.Name, s.Value, s.Origin, s.Doc); e != nil {
			err = e
		}
	}
	return errors.Join(err, t.Flush())
}

func shown(v reflect.Value) string {
	text := fmt.Sprint(v.Interface())
	switch {
	case v.Kind() == reflect.Slice:
		return "[" + strings.Join(v.Interface().([]string), ", ") + "]"
	case text == "":
		return "-"
	case strings.Contains(text, "://"):
		u, err := url.Parse(text)
		if err != nil {
			return "(a URL with a mistake)" // which may hold a password
		}
		if q := u.Query(); q.Has("password") {
			q.Set("password", "xxxxx")
			u.RawQuery = q.Encode()
		}
		return u.Redacted()
	}
	return text
}

// Check says what cannot work, with a way to mend it.
func (c Config) Check() error {
	bad := func(detail, fix string) error {
		return fault.New(fault.Invalid, "config_invalid", "%s", detail).WithFix("%s", fix)
	}
	switch {
	case c.Data == "":
		return bad("data is empty.", "data: /var/lib/gradegate")
	case c.Audit.Sync != "normal" && c.Audit.Sync != "strict":
		return bad("audit.sync is neither normal nor strict.", "audit: {sync: normal}")
	case c.Executor.Kind != "local":
		return bad("executor.kind "+c.Executor.Kind+" does not exist.", "executor: {kind: local}")
	case (c.TLS.Cert == "") != (c.TLS.Key == ""):
		return bad("tls needs both cert and key.", "tls: {cert: FILE, key: FILE}")
	case c.Executor.Local.Slots < 0:
		return bad("executor.local.slots is negative.", "executor: {local: {slots: 0}} means one for each processor")
	case c.Policy.MaxPerUser < 1:
		return bad("policy.max_per_user is below 1.", "policy: {max_per_user: 1}")
	case c.Policy.MaxLifetime < c.Policy.Lifetime || c.Policy.Lifetime < Duration(15*time.Minute):
		return bad("policy.lifetime lies outside of 15 minutes to policy.max_lifetime.", "policy: {lifetime: 90d, max_lifetime: 365d}")
	}
	if name := c.keptTooShort(); name != "" {
		return bad("retention."+name+" is below 60 days.", fmt.Sprintf("retention: {%s: 365d}; an ended token stays a token for 30 days, and what explains it must outlive that", name))
	}
	if name := c.limitBelowOne(); name != "" {
		return bad("limits."+name+" is below 1.", fmt.Sprintf("limits: {%s: N} with a whole number of 1 or more; left out, it is the default", name))
	}
	if _, err := c.Proxies(); err != nil {
		return err
	}
	if err := c.checkURLs(); err != nil {
		return err
	}
	return c.checkListen()
}

// leastKept is the shortest retention of anything.
const leastKept = Duration(60 * 24 * time.Hour)

// keptTooShort is the first kind of record that would be gone too soon, or "".
func (c Config) keptTooShort() string {
	v := reflect.ValueOf(c.Retention)
	for i := range v.NumField() {
		if v.Field(i).Interface().(Duration) < leastKept {
			return v.Type().Field(i).Tag.Get("yaml")
		}
	}
	return ""
}

// limitBelowOne is the first of the limits that would stop everything, or "".
func (c Config) limitBelowOne() string {
	v := reflect.ValueOf(c.Limits)
	for i := range v.NumField() {
		if v.Field(i).Int() < 1 {
			return v.Type().Field(i).Tag.Get("yaml")
		}
	}
	return ""
}

// checkURLs never repeats a URL: it may hold a password.
func (c Config) checkURLs() error {
	if u, err := url.Parse(c.PublicURL); err != nil || c.PublicURL != "" && (u.Host == "" || u.Scheme != "https" && u.Scheme != "http" || u.RawQuery != "" || u.Fragment != "") {
		return fault.New(fault.Invalid, "config_invalid", "public_url is no address of a web server.").WithFix("public_url: https://grade.example.org")
	}
	for name, text := range map[string]string{"database.tokens": c.Database.Tokens, "database.jobs": c.Database.Jobs} {
		if u, err := url.Parse(text); text != "" && (err != nil || u.Scheme != "postgres" && u.Scheme != "postgresql") {
			return fault.New(fault.Invalid, "config_invalid", "%s is no postgres:// URL.", name).
				WithFix("database: {tokens: \"postgres://gradegate@db.example.org/gradegate\"}, or leave it out for SQLite")
		}
	}
	return nil
}

func (c Config) checkListen() error {
	for _, l := range []string{c.Listen, c.AdminListen} {
		if l == "" {
			continue
		}
		host, port, ok := cutPort(l)
		if _, err := strconv.ParseUint(port, 10, 16); !ok || err != nil {
			return fault.New(fault.Invalid, "config_invalid", "%s is no address to listen on.", l).WithFix("listen: 127.0.0.1:8080")
		}
		if a, err := netip.ParseAddr(host); host == "localhost" || err == nil && a.IsLoopback() {
			continue
		}
		if c.TLS.Cert == "" && !c.Insecure && len(c.TrustedProxies) == 0 {
			return fault.New(fault.Invalid, "plain_http", "Plain HTTP on %s would show every token to the network.", l).
				WithFix("Set tls, or trusted_proxies if a proxy in front does it; --insecure overrides this.")
		}
	}
	return nil
}

func cutPort(s string) (host, port string, ok bool) {
	host, port, err := net.SplitHostPort(s)
	return host, port, err == nil
}

// Proxies are the networks of trusted proxies.
func (c Config) Proxies() ([]netip.Prefix, error) {
	var out []netip.Prefix
	for _, s := range c.TrustedProxies {
		p, err := netip.ParsePrefix(s)
		if a, e := netip.ParseAddr(s); err != nil && e == nil {
			p, err = a.Prefix(a.BitLen())
		}
		if err != nil {
			return nil, fault.New(fault.Invalid, "config_invalid", "trusted_proxies: %s is no network.", s).WithFix("trusted_proxies: [10.0.0.0/8]")
		}
		out = append(out, p.Masked())
	}
	return out, nil
}

// Path gives the place of something in the data folder, unless it is set.
func (c Config) Path(set, name string) string {
	if set != "" {
		return set
	}
	return filepath.Join(c.Data, name)
}
