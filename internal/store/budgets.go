package store

import (
	"encoding/json"
	"time"

	"gradegate/internal/budget"
	"gradegate/internal/clock"
)

// budgetBody is a budget as a column has it. Spans are microseconds.
type budgetBody struct {
	GPU    int64       `json:"gpu,omitempty"`
	Per    int64       `json:"per,omitempty"`
	Jobs   int         `json:"jobs,omitempty"`
	Grants []grantBody `json:"grants,omitempty"`
}

type grantBody struct {
	ID     string `json:"id"`
	GPU    int64  `json:"gpu,omitempty"`
	Jobs   int    `json:"jobs,omitempty"`
	At     int64  `json:"at"`
	Until  int64  `json:"until"`
	Reason string `json:"reason"`
	By     string `json:"by"`
}

func budgetToText(b budget.Budget, grants []budget.Grant) string {
	if b.IsZero() && len(grants) == 0 {
		return ""
	}
	body := budgetBody{GPU: b.GPU.Microseconds(), Per: b.Per.Microseconds(), Jobs: b.Jobs}
	for _, g := range grants {
		body.Grants = append(body.Grants, grantBody{g.ID, g.GPU.Microseconds(), g.Jobs, clock.Micros(g.At), clock.Micros(g.Until), g.Reason, g.By})
	}
	text, err := json.Marshal(body)
	if err != nil {
		panic("store: " + err.Error()) // numbers and text always encode
	}
	return string(text)
}

// budgetOfText reads the column. One that cannot be read leaves the least:
// doubt tightens.
func budgetOfText(text string) (budget.Budget, []budget.Grant) {
	if text == "" {
		return budget.Budget{}, nil
	}
	var body budgetBody
	if err := json.Unmarshal([]byte(text), &body); err != nil {
		return budget.Nothing, nil
	}
	var grants []budget.Grant
	for _, g := range body.Grants {
		grants = append(grants, budget.Grant{
			ID: g.ID, GPU: micros(g.GPU), Jobs: g.Jobs, At: clock.Micro(g.At), Until: clock.Micro(g.Until), Reason: g.Reason, By: g.By,
		})
	}
	return budget.Budget{GPU: micros(body.GPU), Per: micros(body.Per), Jobs: body.Jobs}, grants
}

// seconds is a span in whole seconds: what a line of the quota ledger has.
func seconds(d time.Duration) int64 { return int64(d / time.Second) }
