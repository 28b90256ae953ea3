package server

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sys/unix"

	"gradegate/api"
	"gradegate/internal/fault"
	"gradegate/internal/maintenance"
	"gradegate/internal/principal"
	"gradegate/internal/token"
)

// sweepPause is between two batches of the sweeper: it is never in a hurry.
const sweepPause = 50 * time.Millisecond

func (s *Server) openMaintenance(context.Context) error {
	node, err := os.Hostname()
	if err != nil {
		node = "node"
	}
	s.maintenance, err = maintenance.New(maintenance.Config{
		Store: s.tokens, Table: s.table, Jobs: s.jobs, Directory: directory{s}, Now: s.clock.Now, Doubt: s.doubt, NewID: s.newID,
		Pause: sweepPause, Keep: time.Duration(s.cfg.Retention.Tokens), Dir: s.cfg.Path(s.cfg.Archive.Dir, "archive"), Key: s.keys.Trail(), Log: s.log,
		Gauge: gauge{s}, Samples: s.tokens, Node: node,
	})
	return err
}

// doubt is why nothing irreversible is done at the moment because time has passed.
func (s *Server) doubt() string {
	switch {
	case s.clock.Ahead() > 0:
		return "the machine's clock has leapt ahead and is not believed (gradegate clock show)"
	case !s.trail.Records():
		return "uses cannot be recorded at the moment, so that nobody knows what was unused (gradegate status)"
	}
	return ""
}

// directory finds what a hold can be on.
type directory struct{ *Server }

func (d directory) User(ctx context.Context, name string) (id, shown string, err error) {
	var p principal.Principal
	if strings.HasPrefix(name, "usr_") {
		p, err = d.tokens.Principal(ctx, principal.ID(name))
	} else {
		p, err = d.tokens.PrincipalByName(ctx, name)
	}
	return string(p.ID), p.Name, err
}

func (d directory) Competition(ctx context.Context, name string) error {
	_, err := d.jobs.Competition(ctx, name)
	return err
}

func (d directory) TokenName(ctx context.Context, id token.ID) (string, error) {
	k, err := d.tokens.Token(ctx, id)
	if err == nil || fault.KindOf(err) != fault.NotFound {
		return k.Name, err
	}
	a, err := d.tokens.ArchivedToken(ctx, id)
	return a.Token.Name, err
}

// gauge measures what the server keeps.
type gauge struct{ *Server }

// Measure implements maintenance.Gauge.
func (g gauge) Measure(ctx context.Context, now time.Time) (maintenance.Sample, error) {
	rows, tokens, err := g.tokens.Sizes(ctx)
	if err != nil {
		return maintenance.Sample{}, err
	}
	more, jobs, err := g.jobs.Sizes(ctx)
	if err != nil {
		return maintenance.Sample{}, err
	}
	maps.Copy(rows, more)
	out := maintenance.Sample{At: now, Rows: rows, Bytes: map[string]int64{"tokens.db": tokens, "jobs.db": jobs}, Disks: map[string]maintenance.Disk{}}
	folders := map[string]string{
		"ledger": g.cfg.Path(g.cfg.Ledger.Dir, "ledger"), "audit": g.cfg.Path(g.cfg.Audit.Dir, "audit"),
		"archive": g.cfg.Path(g.cfg.Archive.Dir, "archive"), "bundles": filepath.Join(g.cfg.Data, "grading", "bundles"),
		"job_folders": filepath.Join(g.cfg.Data, "grading", "jobs"),
	}
	for name, dir := range folders {
		out.Bytes[name] = sizeOf(dir)
	}
	// What shares a disk is one disk, named by the first of them.
	seen := map[string]bool{}
	for _, d := range []struct{ name, dir string }{
		{"data", g.cfg.Data}, {"ledger", folders["ledger"]}, {"audit", folders["audit"]}, {"archive", folders["archive"]},
	} {
		disk, id, err := diskOf(d.dir)
		if err == nil && !seen[id] {
			seen[id], out.Disks[d.name] = true, disk
		}
	}
	return out, nil
}

// sizeOf is what the files of a folder take up; of what cannot be read, nothing.
func sizeOf(dir string) (n int64) {
	_ = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return nil //nolint:nilerr // what is gone meanwhile takes up nothing
		}
		if info, err := d.Info(); err == nil {
			n += info.Size()
		}
		return nil
	})
	return n
}

func diskOf(dir string) (maintenance.Disk, string, error) {
	var st unix.Statfs_t
	var file unix.Stat_t
	if err := errors.Join(unix.Statfs(dir, &st), unix.Stat(dir, &file)); err != nil {
		return maintenance.Disk{}, "", err
	}
	size := int64(st.Bsize)
	// What is kept back for root is not ours to use.
	used := int64(st.Blocks-st.Bfree) * size //nolint:gosec // disks have less than 2^63 bytes
	free := int64(st.Bavail) * size          //nolint:gosec // likewise
	return maintenance.Disk{Total: used + free, Free: free}, fmt.Sprint(file.Dev), nil
}

// Made implements maintenance.Gauge.
func (g gauge) Made(since time.Time) map[principal.ID]int {
	out := map[principal.ID]int{}
	g.table.EachToken(func(k *token.Token, _ *principal.Principal) {
		if k.IssuedAt.After(since) && k.Kind != token.Refresh && k.Kind != token.Invite {
			out[k.Owner]++
		}
	})
	return out
}

// growthHealth is how growth stands, without saying more than who is not signed in
// needs to know.
func (s *Server) growthHealth() api.Check {
	c := api.Check{Status: "ok", Since: s.started}
	g := s.maintenance.LastGrowth()
	if g.Level > 0 {
		c.Detail = fmt.Sprintf("More than %d %% of a disk or of a table's rows is in use: gradegate growth", g.Level)
	}
	if g.Level >= 85 {
		c.Status = "degraded"
	}
	return c
}

// sweepHealth says when the last sweep was.
func (s *Server) sweepHealth() api.Check {
	c := api.Check{Status: "ok", Since: s.started, Detail: "Nothing was swept yet since the start."}
	last, moved := s.maintenance.Last()
	if last.Began.IsZero() {
		return c
	}
	c.Detail = fmt.Sprintf("Last run %s: %d archived, %d since the start.", last.Done.Format(time.RFC3339), last.Moved, moved)
	if last.Skipped != "" {
		c.Detail = fmt.Sprintf("Nothing was swept at %s: %s.", last.Done.Format(time.RFC3339), last.Skipped)
	}
	return c
}

// growthMetrics are what was measured last.
type growthMetrics struct {
	s                            *Server
	rows, bytes, disk, days      *prometheus.Desc
	level, swept, archived, kept *prometheus.Desc
}

func (s *Server) growthMetrics() prometheus.Collector {
	d := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("gradegate_"+name, help, labels, nil)
	}
	return &growthMetrics{
		s: s, rows: d("rows", "Rows of a table.", "table"), bytes: d("bytes", "Bytes of a part of the data.", "part"),
		disk: d("disk_used_ratio", "How full the disk of a part is.", "disk"), days: d("disk_full_days", "In how many days the disk is full, if that is in sight.", "disk"),
		level: d("growth_level", "The highest alert about growth: 0, 70, 85 or 95."), swept: d("sweep_last_run_seconds", "When the last sweep ended, in seconds since 1970."),
		archived: d("archived_total", "Tokens archived since the start."), kept: d("sweep_kept", "Ended tokens that the last sweep left where they are, by reason.", "reason"),
	}
}

// Describe implements prometheus.Collector.
func (m *growthMetrics) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{m.rows, m.bytes, m.disk, m.days, m.level, m.swept, m.archived, m.kept} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (m *growthMetrics) Collect(ch chan<- prometheus.Metric) {
	put := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	g := m.s.maintenance.LastGrowth()
	for _, r := range g.Rows {
		put(m.rows, float64(r.Value), r.Name)
	}
	for _, b := range g.Bytes {
		put(m.bytes, float64(b.Value), b.Name)
	}
	for _, d := range g.Disks {
		put(m.disk, float64(d.Value)/float64(max(1, d.Limit)), d.Name)
		if d.Full {
			put(m.days, float64(d.Days), d.Name)
		}
	}
	put(m.level, float64(g.Level))
	last, moved := m.s.maintenance.Last()
	ch <- prometheus.MustNewConstMetric(m.archived, prometheus.CounterValue, float64(moved))
	if !last.Done.IsZero() {
		put(m.swept, float64(last.Done.Unix()))
	}
	for _, k := range last.Kept {
		put(m.kept, float64(k.Count), k.Name)
	}
}
