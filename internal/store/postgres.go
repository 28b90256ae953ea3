package store

import (
	"context"
	"database/sql"
	"errors"
	"net"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"

	"gradegate/internal/fault"
)

var postgresDialect = &dialect{
	name:      "postgres",
	forUpdate: " FOR UPDATE",
	unique:    postgresUnique,
	refused:   postgresRefused,
	integrity: func(ctx context.Context, db *sql.DB) error { return db.PingContext(ctx) },
	snapshot:  &sql.TxOptions{Isolation: sql.LevelRepeatableRead, ReadOnly: true},
	notify: func(ctx context.Context, tx *sql.Tx, channel string) error {
		_, err := tx.ExecContext(ctx, "SELECT pg_notify($1, '')", channel)
		return err
	},
}

// connectTime bounds connecting, and peerTime how long a silent peer is waited
// for: a COMMIT has no deadline of its own, so TCP must end it.
const (
	connectTime = 5 * time.Second
	peerTime    = 10 * time.Second
)

// tcpUserTimeout is TCP_USER_TIMEOUT of Linux, which package syscall lacks.
const tcpUserTimeout = 0x12

// openPostgres connects, and makes the schema if it is missing. Each of our
// databases is a schema of its own in the database that the URL names.
func openPostgres(ctx context.Context, url string, k kind) (*database, error) {
	cfg, err := postgresConfig(url, k.name)
	if err != nil {
		return nil, err
	}
	db := stdlib.OpenDB(*cfg)
	db.SetMaxOpenConns(8)
	db.SetMaxIdleConns(8)
	d := &database{dialect: postgresDialect, schema: k.name, url: url, write: db, read: db}
	if _, err = db.ExecContext(ctx, "CREATE SCHEMA IF NOT EXISTS "+k.name); err != nil {
		// Two nodes that start at once can both see it missing.
		if _, again := d.unique(err); !again {
			_ = db.Close()
			return nil, d.trouble(err)
		}
	}
	if err = d.assertPostgres(ctx); err == nil {
		err = d.migrate(ctx, goose.DialectPostgres)
	}
	if err != nil {
		_ = db.Close()
		return nil, err
	}
	return d, nil
}

func postgresConfig(url, schema string) (*pgx.ConnConfig, error) {
	cfg, err := pgx.ParseConfig(url)
	if err != nil {
		// The cause could repeat the password of the URL.
		return nil, fault.New(fault.Invalid, "store_url", "The URL of the %s database cannot be read.", schema).
			WithFix("Write it as postgres://user@host:5432/name?sslmode=verify-full")
	}
	cfg.ConnectTimeout = connectTime
	cfg.RuntimeParams["search_path"] = schema
	cfg.RuntimeParams["application_name"] = "gradegate " + schema
	cfg.RuntimeParams["statement_timeout"] = "10000"
	cfg.RuntimeParams["lock_timeout"] = "5000"
	cfg.RuntimeParams["idle_in_transaction_session_timeout"] = "30000"
	dialer := &net.Dialer{
		Timeout:         connectTime,
		KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 5 * time.Second, Interval: 2 * time.Second, Count: 3},
		Control: func(network, _ string, c syscall.RawConn) error {
			if !strings.HasPrefix(network, "tcp") {
				return nil
			}
			return c.Control(func(fd uintptr) {
				// Best effort: without it the kernel's own time-outs hold.
				_ = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, tcpUserTimeout, int(peerTime.Milliseconds()))
			})
		},
	}
	cfg.DialFunc = dialer.DialContext
	return cfg, nil
}

// assertPostgres refuses a server that acknowledges what it may lose.
func (d *database) assertPostgres(ctx context.Context) error {
	var sync string
	if err := d.write.QueryRowContext(ctx, "SELECT current_setting('synchronous_commit')").Scan(&sync); err != nil {
		return d.trouble(err)
	}
	if sync == "off" {
		return fault.New(fault.Invalid, "postgres_settings", "PostgreSQL runs with synchronous_commit = off and loses acknowledged decisions in a crash.").
			WithFix("ALTER ROLE … SET synchronous_commit = on")
	}
	return nil
}

func postgresUnique(err error) (string, bool) {
	e, ok := errors.AsType[*pgconn.PgError](err)
	if !ok || e.Code != "23505" {
		return "", false
	}
	return e.ConstraintName, true
}

// postgresRefused: class 23 is integrity constraints, class 22 data.
func postgresRefused(err error) bool {
	e, ok := errors.AsType[*pgconn.PgError](err)
	return ok && (strings.HasPrefix(e.Code, "23") || strings.HasPrefix(e.Code, "22"))
}
