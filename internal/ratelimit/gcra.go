// Package ratelimit counts requests against time, in one word per key.
//
// It is the generic cell rate algorithm (ITU-T I.371): a key's state is the
// instant at which its bucket is full again. Two uses are built on it: buckets
// by key for requests that are allowed, and a budget of failures by address.
package ratelimit

import "time"

// Limit is Events per Per, of which Burst may come at once (zero: Events).
// Events is at least 1, and Per at least a microsecond for each of them: finer
// limits round to that. Burst times Per/Events stays below 290,000 years.
type Limit struct {
	Events int
	Per    time.Duration
	Burst  int
}

// Decision is the answer for one request.
type Decision struct {
	Allowed    bool
	Remaining  int           // how many more would be allowed right now
	RetryAfter time.Duration // until the next one is, if this was not; else zero
	Reset      time.Duration // until the bucket is full again
}

// step is the time that one event costs, in microseconds.
func (l Limit) step() int64 { return max(1, l.Per.Microseconds()/int64(max(1, l.Events))) }

func (l Limit) burst() int64 {
	if l.Burst > 0 {
		return int64(l.Burst)
	}
	return int64(max(1, l.Events))
}

// skew is how far the instants of concurrent callers may lie apart, in
// microseconds. A state that is further ahead than its bucket is deep was
// written before the clock was set back.
const skew = 1_000_000

// decide is the algorithm: full is the instant at which the bucket is full, and
// the first result is what it becomes.
func (l Limit) decide(full, now int64) (int64, Decision) {
	step := l.step()
	room := step * l.burst()
	if full > now+room+skew {
		full = now + room // an empty bucket, not one that stays empty for as long as the clock jumped
	}
	next := max(full, now) + step
	if over := next - now - room; over > 0 {
		return full, Decision{RetryAfter: micros(over), Reset: micros(full - now)}
	}
	return next, Decision{Allowed: true, Remaining: int((room - (next - now)) / step), Reset: micros(next - now)}
}

func micros(us int64) time.Duration { return time.Duration(us) * time.Microsecond }
