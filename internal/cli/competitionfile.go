package cli

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"gradegate/api"
	"gradegate/internal/fault"
)

// competitionFile is competition.yaml in the folder of a competition.
type competitionFile struct {
	Name        string               `yaml:"name"`
	Project     string               `yaml:"project"` // groups competitions, for tokens
	Title       string               `yaml:"title"`
	Description string               `yaml:"description"`
	Metrics     []string             `yaml:"metrics"`
	RankBy      string               `yaml:"rank_by"` // the metric of the leaderboard; default: the first one
	Public      []string             `yaml:"public"`
	Accept      []string             `yaml:"accept"`
	Resources   competitionResources `yaml:"resources"`
	Quota       competitionQuota     `yaml:"quota"`
	Open        bool                 `yaml:"open"`
}

type competitionResources struct {
	GPUs      int    `yaml:"gpus"`
	CPUs      int    `yaml:"cpus"`
	Memory    string `yaml:"memory"`
	TimeLimit string `yaml:"time_limit"`
	Output    string `yaml:"output"`
	Log       string `yaml:"log"`
	Processes int    `yaml:"processes"`
}

type competitionQuota struct {
	PerDay     int `yaml:"per_day"`
	Concurrent int `yaml:"concurrent"`
}

// blocks are the parts of the file whose keys are known, by what the decoder
// calls them.
var blocks = map[string]struct {
	where string
	of    reflect.Type
}{
	"cli.competitionFile":      {"", reflect.TypeFor[competitionFile]()},
	"cli.competitionResources": {" in resources", reflect.TypeFor[competitionResources]()},
	"cli.competitionQuota":     {" in quota", reflect.TypeFor[competitionQuota]()},
}

func keysOf(t reflect.Type) (keys []string) {
	for i := range t.NumField() {
		keys = append(keys, t.Field(i).Tag.Get("yaml"))
	}
	return keys
}

var (
	unknownKey = regexp.MustCompile(`line (\d+): field (\S+) not found in type (\S+)`)
	wrongValue = regexp.MustCompile("line (\\d+): cannot unmarshal !!(\\w+)(?: `([^`]*)`)? into (\\S+)")
)

// yamlWords are the decoder's names of things, in ours.
var yamlWords = map[string]string{
	"int": "a whole number", "bool": "true or false", "string": "text", "[]string": "a list such as [a, b]",
	"cli.competitionResources": "a block of keys", "cli.competitionQuota": "a block of keys", "cli.competitionFile": "keys and values",
}

// fileMistake tells the first thing that is wrong with a competition's file,
// by its line and in words of the file.
func fileMistake(path string, err error) error {
	bad := func(detail string) *fault.Error {
		return fault.Wrap(fault.Invalid, "competition_file", path+": "+detail, err).WithFix("See examples/iris/competition.yaml for how it looks.")
	}
	if m := unknownKey.FindStringSubmatch(err.Error()); m != nil {
		b, known := blocks[m[3]]
		if !known {
			return bad(fmt.Sprintf("line %s: there is no key %q.", m[1], m[2]))
		}
		keys := keysOf(b.of)
		f := bad(fmt.Sprintf("line %s: there is no key %q%s%s", m[1], m[2], b.where, didYouMean(m[2], keys)))
		return f.With("keys", strings.Join(keys, ", "))
	}
	if m := wrongValue.FindStringSubmatch(err.Error()); m != nil {
		given := fmt.Sprintf("%q", m[3])
		if m[3] == "" {
			given = "what stands there"
		}
		want := yamlWords[m[4]]
		if want == "" {
			want = m[4]
		}
		return bad(fmt.Sprintf("line %s: %s does not fit: %s is wanted.", m[1], given, want))
	}
	return bad(strings.TrimPrefix(err.Error(), "yaml: ") + ".")
}

func readCompetition(dir string) (api.Competition, error) {
	path := filepath.Join(dir, "competition.yaml")
	data, err := os.ReadFile(path)
	if err != nil {
		return api.Competition{}, fault.Wrap(fault.Invalid, "competition_file", fmt.Sprintf("%s cannot be read: %v.", path, plainly(err)), err).
			WithFix("Name the folder that holds competition.yaml; examples/iris is one to begin with.")
	}
	f := competitionFile{Open: true}
	dec := yaml.NewDecoder(bytes.NewReader(data))
	dec.KnownFields(true)
	if err := dec.Decode(&f); err != nil && !errors.Is(err, io.EOF) {
		return api.Competition{}, fileMistake(path, err)
	}
	if f.RankBy != "" {
		i := slices.Index(f.Metrics, f.RankBy)
		if i < 0 {
			return api.Competition{}, fault.New(fault.Invalid, "competition_file", "%s: rank_by names %s, which is none of the metrics.", path, f.RankBy).
				WithFix("metrics: [%s]", f.RankBy)
		}
		f.Metrics = append([]string{f.RankBy}, slices.Delete(f.Metrics, i, i+1)...) // the first one ranks
	}
	r := f.Resources
	return api.Competition{
		Name: f.Name, Project: f.Project, Title: f.Title, Description: f.Description, Metrics: f.Metrics, Accept: f.Accept, Files: f.Public, Open: f.Open,
		Resources: api.Resources{GPUs: r.GPUs, CPUs: r.CPUs, Memory: r.Memory, TimeLimit: r.TimeLimit, Output: r.Output, Log: r.Log, Processes: r.Processes},
		Quota:     api.QuotaRule{PerDay: f.Quota.PerDay, Concurrent: f.Quota.Concurrent},
	}, nil
}

// packCompetition packs the listed public files and the hidden folder, and
// nothing else that may lie beside them.
func packCompetition(dir string, public []string) (func() (io.ReadCloser, error), error) {
	if len(public) == 0 {
		open, _, _, err := opener(dir)
		return open, err
	}
	tmp, err := os.MkdirTemp("", "gradegate-competition-")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(tmp) }()
	for _, p := range append(public, "hidden/labels.csv") {
		if !filepath.IsLocal(p) {
			return nil, fault.New(fault.Invalid, "competition_file", "The list of public files names %s, which is outside of the folder.", p).
				WithFix("Copy it into %s, and name it by its path there.", dir)
		}
		data, err := os.ReadFile(filepath.Join(dir, p))
		if err != nil {
			return nil, fault.Wrap(fault.Invalid, "competition_file", fmt.Sprintf("The competition needs %s: %v.", filepath.Join(dir, p), plainly(err)), err).
				WithFix("Put the file there, or correct public: in %s.", filepath.Join(dir, "competition.yaml"))
		}
		if err := os.MkdirAll(filepath.Dir(filepath.Join(tmp, p)), 0o700); err != nil {
			return nil, err
		}
		if err := os.WriteFile(filepath.Join(tmp, p), data, 0o600); err != nil {
			return nil, err
		}
	}
	open, _, _, err := opener(tmp)
	return open, err
}
