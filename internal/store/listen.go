package store

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"
)

// listen turns PostgreSQL's notifications into hints on a connection of its
// own. It is allowed to fail at any time: the poll is the truth.
func listen(ctx context.Context, t *Tokens, hints chan<- struct{}) {
	for ctx.Err() == nil {
		err := listenOnce(ctx, t.cfg.URL, func() {
			select {
			case hints <- struct{}{}:
			default:
			}
		})
		if err != nil && ctx.Err() == nil {
			t.cfg.Log.Debug("listening for changes ended; polling goes on", "error", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(time.Second): // before connecting again
		}
	}
}

// listenPing bounds how long a silent connection is believed to be alive.
const listenPing = 30 * time.Second

func listenOnce(ctx context.Context, url string, hint func()) error {
	cfg, err := postgresConfig(url, tokensKind.name)
	if err != nil {
		return err
	}
	conn, err := pgx.ConnectConfig(ctx, cfg)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx)) //nolint:errcheck // it is being given up
	if _, err := conn.Exec(ctx, "LISTEN "+feedChannel); err != nil {
		return err
	}
	hint() // what came before we listened
	for {
		wait, cancel := context.WithTimeout(ctx, listenPing)
		_, err := conn.WaitForNotification(wait)
		timedOut := wait.Err() != nil && ctx.Err() == nil
		cancel()
		if err != nil && !timedOut {
			return err
		}
		if timedOut {
			if err := conn.Ping(ctx); err != nil {
				return err
			}
		}
		hint()
	}
}
