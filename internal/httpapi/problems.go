package httpapi

import (
	_ "embed" // the list of problems
	"encoding/json"
	"fmt"
	"net/http"
	"sync"

	"gradegate/internal/fault"
)

// problemText is what a problem's code means, whatever it is about.
type problemText struct {
	Code   string `json:"code"`
	Status int    `json:"status"`
	Detail string `json:"detail"` // an ellipsis stands for what belongs to one occurrence
	Fix    string `json:"fix,omitempty"`
}

// problemList is found in the code by a test, which keeps it the truth.
//
//go:embed problems.json
var problemList []byte

var problems = sync.OnceValue(func() map[string]problemText {
	var list []problemText
	_ = json.Unmarshal(problemList, &list) // TestProblems wrote it
	byCode := make(map[string]problemText, len(list))
	for _, p := range list {
		byCode[p.Code] = p
	}
	return byCode
})

// meaning is what a problem's code stands for, and what one does about it; "" of
// one that is not known.
func meaning(code string) (detail, fix string) {
	p := problems()[code]
	return p.Detail, p.Fix
}

// problemPage is where the type of a problem leads (RFC 9457, section 3.1.1).
func (a *API) problemPage(c *call, r *http.Request) error {
	p, ok := problems()[r.PathValue("code")]
	if !ok {
		return fault.New(fault.NotFound, "problem_unknown", "There is no problem of that code.").WithFix("See /openapi.json.")
	}
	text := fmt.Sprintf("%s (%d)\n\n%s\n", p.Code, p.Status, p.Detail)
	if p.Fix != "" {
		text += "\nWhat to do: " + p.Fix + "\n"
	}
	return c.plainText(http.StatusOK, text+"\nHow one request was decided: gradegate explain REQUEST_ID\n")
}
