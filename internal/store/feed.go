package store

import (
	"context"
	"database/sql"
	"errors"
	"strings"
	"time"

	"gradegate/internal/authn"
	"gradegate/internal/token"
)

const (
	// feedChannel is what PostgreSQL notifies: a hint, never the truth.
	feedChannel = "gradegate_changes"
	// feedPoll is how often the truth is asked for.
	feedPoll = 250 * time.Millisecond
	// feedPage is how many changes one poll takes at most.
	feedPage = 500
)

// startFeed follows what other nodes commit: the changes behind revision after.
func (t *Tokens) startFeed(after int64) {
	hints := make(chan struct{}, 1)
	ctx, cancel := context.WithCancel(context.Background())
	t.feed.Add(2)
	go func() {
		defer t.feed.Done()
		<-t.stop
		cancel()
	}()
	go func() {
		defer t.feed.Done()
		listen(ctx, t, hints)
	}()
	t.feed.Add(1)
	go func() {
		defer t.feed.Done()
		t.pollFeed(ctx, after, hints)
	}()
}

func (t *Tokens) pollFeed(ctx context.Context, after int64, hints <-chan struct{}) {
	ticker := time.NewTicker(feedPoll)
	defer ticker.Stop()
	for {
		if next, err := t.poll(ctx, after); err == nil {
			after = next
			if t.cfg.Fresh != nil {
				t.cfg.Fresh()
			}
		} else if ctx.Err() == nil {
			t.cfg.Log.Warn("the change feed of the other nodes cannot be read", "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-hints:
		case <-ticker.C:
		}
	}
}

// poll tells the followers everything behind a revision, and returns the
// revision that it reached. Since the head row is locked by whoever commits,
// revisions appear in order and without gaps that fill later.
func (t *Tokens) poll(ctx context.Context, after int64) (int64, error) {
	ctx, cancel := context.WithTimeout(ctx, statementTime)
	defer cancel()
	for {
		ids, last, err := t.changedSince(ctx, after)
		if err != nil || len(ids) == 0 {
			return max(after, last), err
		}
		if err := t.refresh(ctx, ids, last); err != nil {
			return after, err
		}
		after = last
	}
}

// changedSince collects the ids of one page of changes by other nodes. A page
// of our own changes only has ids of "".
func (t *Tokens) changedSince(ctx context.Context, after int64) (ids []string, last int64, err error) {
	db, err := t.healthy()
	if err != nil {
		return nil, after, err
	}
	rows, err := db.read.QueryContext(ctx,
		"SELECT revision, node, ids FROM changes WHERE revision > $1 ORDER BY revision LIMIT $2", after, feedPage)
	if err != nil {
		return nil, after, db.trouble(err)
	}
	defer rows.Close()
	for rows.Next() {
		var node, list string
		if err := rows.Scan(&last, &node, &list); err != nil {
			return nil, after, db.trouble(err)
		}
		if node == t.w.node {
			list = "" // followers were told before it was acknowledged
		}
		ids = append(ids, list)
	}
	return ids, last, db.trouble(rows.Err())
}

// refresh reads the rows as they are now and tells the followers.
func (t *Tokens) refresh(ctx context.Context, lists []string, revision int64) error {
	c := authn.Change{Revision: revision}
	seen := map[string]bool{}
	for _, list := range lists {
		if list == everything {
			return t.Load(ctx, func(c authn.Change) error { t.tell(c); return nil })
		}
		for _, id := range strings.Fields(list) {
			if seen[id] {
				continue
			}
			seen[id] = true
			of := tableOf(id)
			r, err := one(ctx, t, of.selectByKey, of, id)
			if errors.Is(err, sql.ErrNoRows) && of == tokensTable {
				c.Archived = append(c.Archived, token.ID(id))
				continue
			}
			if err != nil {
				return err
			}
			addTo(&c, r)
		}
	}
	if len(c.Principals)+len(c.Tokens)+len(c.Consents)+len(c.Levels)+len(c.Blocks)+len(c.Archived) > 0 {
		t.tell(c)
	}
	return nil
}
