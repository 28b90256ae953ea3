package store

import (
	"context"
	"database/sql"
	"embed"
	"fmt"
	"io/fs"
	"strings"
	"time"

	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"

	"gradegate/internal/fault"
)

// dialect is everything in which the two engines differ beyond their
// migrations.
type dialect struct {
	name string
	// forUpdate ends a SELECT whose rows stay locked until the transaction ends.
	forUpdate string
	// unique names the constraint or columns that an error says were violated.
	unique func(error) (what string, ok bool)
	// refused reports whether the error is the statement's own fault, and not
	// trouble with the database.
	refused func(error) bool
	// integrity is the engine's own quick check.
	integrity func(context.Context, *sql.DB) error
	// snapshot are the options of a transaction that sees one moment.
	snapshot *sql.TxOptions
	// notify wakes whoever listens, once the transaction commits.
	notify func(context.Context, *sql.Tx, string) error
}

// database is one open database: a pool that writes and one that reads, which
// are the same on PostgreSQL.
type database struct {
	*dialect
	write, read *sql.DB
	schema      string // "tokens" or "jobs"
	file        *dbFile
	url         string
}

// kind is which of the two databases is meant.
type kind struct {
	name  string
	appID int32 // SQLite's application_id: tells what a stray file is
}

var (
	tokensKind = kind{name: "tokens", appID: 0x67677401} // "ggt" 1
	jobsKind   = kind{name: "jobs", appID: 0x67676a01}   // "ggj" 1
)

// isPostgres reports whether the URL means PostgreSQL; everything else is a
// path of SQLite.
func isPostgres(url string) bool {
	return strings.HasPrefix(url, "postgres://") || strings.HasPrefix(url, "postgresql://")
}

func sqlitePath(url string) string {
	return strings.TrimPrefix(strings.TrimPrefix(url, "sqlite:"), "//")
}

// openDatabase opens what exists; create allows to make what does not.
func openDatabase(ctx context.Context, url string, k kind, create bool) (*database, error) {
	if isPostgres(url) {
		return openPostgres(ctx, url, k)
	}
	return openSQLite(ctx, sqlitePath(url), k, create)
}

func (d *database) Close() error {
	if d.read != d.write {
		_ = d.read.Close()
	}
	return d.write.Close()
}

//go:embed migrations
var migrations embed.FS

// migrate brings the schema up to date, forward only, each step in one
// transaction. A schema newer than this program is refused.
func (d *database) migrate(ctx context.Context, dialect goose.Dialect) error {
	steps, err := fs.Sub(migrations, "migrations/"+d.name+"/"+d.schema)
	if err != nil {
		return err
	}
	options := []goose.ProviderOption{goose.WithDisableGlobalRegistry(true)}
	if dialect == goose.DialectPostgres {
		locker, err := lock.NewPostgresSessionLocker()
		if err != nil {
			return err
		}
		options = append(options, goose.WithSessionLocker(locker))
	}
	p, err := goose.NewProvider(dialect, d.write, steps, options...)
	if err != nil {
		return err
	}
	have, err := p.GetDBVersion(ctx)
	if err != nil {
		return d.trouble(err)
	}
	sources := p.ListSources()
	if newest := sources[len(sources)-1].Version; have > newest {
		return fault.New(fault.Invalid, "store_newer",
			"The %s database was made by a newer gradegate (schema %d; this one knows %d).", d.schema, have, newest).
			WithFix("Run the newer version, or restore the backup from before the upgrade.")
	}
	if _, err := p.Up(ctx); err != nil {
		return fmt.Errorf("%s migrations: %w", d.schema, d.trouble(err))
	}
	return nil
}

// inTx runs do in one transaction of the writing pool. The transaction is not
// bound to ctx: a caller who goes away never cuts a COMMIT in half.
func (d *database) inTx(ctx context.Context, do func(tx *sql.Tx) error) error {
	if err := ctx.Err(); err != nil {
		return d.trouble(err)
	}
	tx, err := d.write.BeginTx(context.WithoutCancel(ctx), nil)
	if err != nil {
		return d.trouble(err)
	}
	if err := do(tx); err != nil {
		_ = tx.Rollback()
		return err
	}
	return d.trouble(tx.Commit())
}

// statementTime bounds one statement, and decisionTime all those of one
// decision: a database that does not answer for so long is as good as gone.
const (
	statementTime = 10 * time.Second
	decisionTime  = time.Minute
)
