package server

import (
	"net/http"
	"strconv"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"gradegate/internal/httpapi"
)

// metrics are counted by closed lists of words only: no user, no token.
type metrics struct {
	registry *prometheus.Registry
	requests *prometheus.CounterVec
	refusals *prometheus.CounterVec
	modes    *prometheus.CounterVec
	// known spares the hot path the look-up by labels.
	known sync.Map // of routeStatus to prometheus.Counter
}

type routeStatus struct {
	route  string
	status int
}

func (s *Server) newMetrics() *metrics {
	m := &metrics{
		registry: prometheus.NewRegistry(),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "gradegate_requests_total", Help: "Requests by route and status.",
		}, []string{"route", "status"}),
		refusals: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "gradegate_refusals_total", Help: "Refused requests by the code of the refusal.",
		}, []string{"code"}),
		modes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "gradegate_mode_total", Help: "Requests by tokens that were not simply active: quarantined, expired-read or replay.",
		}, []string{"mode"}),
	}
	gauge := func(name, help string, value func() float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, value)
	}
	m.registry.MustRegister(m.requests, m.refusals, m.modes,
		gauge("gradegate_tokens", "Tokens in memory, ended ones included.", func() float64 { return float64(s.table.Len()) }),
		gauge("gradegate_blocks_made", "Blocks by address that administrators made.", func() float64 {
			made, _ := s.blocks.Count(s.clock.Now())
			return float64(made)
		}),
		gauge("gradegate_blocks_automatic", "Blocks by address that began by themselves.", func() float64 {
			_, automatic := s.blocks.Count(s.clock.Now())
			return float64(automatic)
		}),
		gauge("gradegate_tokens_guessed", "Tokens at whose secrets somebody guessed.", func() float64 { return float64(s.table.GuessedTokens()) }),
		gauge("gradegate_database_up", "1 while the tokens database works.", func() float64 {
			database, _ := s.tokens.State()
			return up(database)
		}),
		gauge("gradegate_ledger_up", "1 while the ledger works.", func() float64 {
			_, ledger := s.tokens.State()
			return up(ledger)
		}),
		gauge("gradegate_audit_up", "1 while every sink of the audit trail works.", func() float64 { return up(s.trail.Health()) }),
		gauge("gradegate_clock_ahead_seconds", "How far the wall clock has leapt ahead without being believed.", func() float64 { return s.clock.Ahead().Seconds() }),
		gauge("gradegate_clock_behind_seconds", "How far the wall clock lies behind what has passed for certain.", func() float64 { return s.clock.Behind().Seconds() }),
	)
	return m
}

func up(trouble error) float64 {
	if trouble != nil {
		return 0
	}
	return 1
}

func (m *metrics) observe(o httpapi.Observation) {
	key := routeStatus{o.Route, o.Status}
	c, ok := m.known.Load(key)
	if !ok {
		c, _ = m.known.LoadOrStore(key, m.requests.WithLabelValues(o.Route, strconv.Itoa(o.Status)))
	}
	c.(prometheus.Counter).Inc()
	if o.Mode != "" {
		m.modes.WithLabelValues(o.Mode).Inc()
	}
	if o.Code != "" {
		m.refusals.WithLabelValues(o.Code).Inc()
	}
}

func (m *metrics) handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{})
}
