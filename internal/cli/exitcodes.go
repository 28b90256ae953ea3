package cli

import (
	"fmt"
	"io"
	"net/http"

	"gradegate/api"
	"gradegate/internal/fault"
)

// Exit codes. Programs may rely on them.
const (
	exitOK          = 0
	exitFailure     = 1
	exitUsage       = 2
	exitNotFound    = 3
	exitNoToken     = 4
	exitForbidden   = 5
	exitConflict    = 6
	exitLimited     = 7
	exitUnreachable = 8
	exitJobFailed   = 9
	exitTimeout     = 124
	exitInterrupted = 130
)

// exitCodes says what each of them means, for every command. The help and
// docs/reference/exit-codes.md show this list.
var exitCodes = []struct {
	code          int
	status, means string
}{
	{exitOK, "", "it was done"},
	{exitFailure, "500", "none of those below: it failed on one of the two sides, what was examined is not in order (audit verify), or you answered no"},
	{exitUsage, "400, 413, 415", "what was given is wrong and stays wrong: a command, a flag, a value, a file, a setting"},
	{exitNotFound, "404", "there is no such thing, or it is not yours"},
	{exitNoToken, "401", "no token, or one that is no good"},
	{exitForbidden, "403", "not allowed"},
	{exitConflict, "409, 412, 422", "the state of things forbids it: it is there already, was changed meanwhile, or a quota or budget is used up"},
	{exitLimited, "429", "too many requests: wait"},
	{exitUnreachable, "502, 503, 504", "the server does not answer, or cannot do it at this moment: try again"},
	{exitJobFailed, "", "the job, or the trial of one, has ended and has no grade"},
	{exitTimeout, "", "the time of --timeout is over"},
	{exitInterrupted, "", "interrupted"},
}

func exitTable(w io.Writer) {
	for _, x := range exitCodes {
		fmt.Fprintf(w, "%5d  %s\n", x.code, x.means)
	}
}

// codeOf is the exit code of a refusal by the server, or of a failure to reach it.
func codeOf(e *api.Error) int {
	if quotaCode(e.Code) {
		return exitConflict
	}
	switch e.Status {
	case 0: // found by the client, before or without an answer
		switch e.Code {
		case "unreachable":
			return exitUnreachable
		case "token_malformed":
			return exitNoToken
		}
		return exitUsage
	case http.StatusBadRequest, http.StatusRequestEntityTooLarge, http.StatusUnsupportedMediaType:
		return exitUsage
	case http.StatusUnauthorized:
		return exitNoToken
	case http.StatusForbidden:
		return exitForbidden
	case http.StatusNotFound:
		return exitNotFound
	case http.StatusConflict, http.StatusPreconditionFailed, http.StatusUnprocessableEntity:
		return exitConflict
	case http.StatusTooManyRequests:
		return exitLimited
	case http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return exitUnreachable
	}
	return exitFailure
}

// codeOfKind is the same for what this side found itself.
func codeOfKind(k fault.Kind) int {
	switch k {
	case fault.Invalid, fault.TooLarge, fault.Unsupported:
		return exitUsage
	case fault.NotFound:
		return exitNotFound
	case fault.Unauthenticated:
		return exitNoToken
	case fault.Denied:
		return exitForbidden
	case fault.Conflict, fault.Mismatched:
		return exitConflict
	case fault.Limited:
		return exitLimited
	case fault.Unavailable:
		return exitUnreachable
	}
	return exitFailure
}

// quotaCode reports whether a refusal is about what was used up, which a wait or
// a grant helps against, and no other right.
func quotaCode(code string) bool { return code == "quota_exceeded" || code == "budget_exceeded" }

// amiss is what an examination found: the command did its work, and what it
// looked at is not in order.
type amiss struct {
	err  error
	code int
}

func (x amiss) Error() string { return x.err.Error() }
func (x amiss) Unwrap() error { return x.err }
