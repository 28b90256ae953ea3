package store

import (
	"database/sql/driver"
	"encoding/json"
	"errors"
	"strconv"
	"strings"

	"gradegate/internal/keys"
)

// table is one table whose rows are under MAC and in the ledger: its columns in
// the one order in which they are written, read and encoded, the primary key
// first.
type table struct {
	name    string
	columns []string
	// counted: its rows are part of the digest. Replies are not, since they
	// lapse by themselves; losing one loses nobody a right.
	counted bool
	empty   func() row
	members []member

	insert, selectByKey, selectAll, update string
}

// row is one row of such a table.
type row interface {
	spec() *table
	// fields are pointers to the columns in order: what Scan fills and what
	// statements take. The first is the key.
	fields() []any
}

// The tables, in the order in which references allow to fill them.
var (
	principalsTable = newTable("principals", true, func() row { return new(principalRow) },
		"id", "version", "name", "email", "kind", "role", "status", "epoch_credentials", "epoch_person",
		"enrolled", "cancel_jobs", "created_at", "changed_at", "member_of",
		"left_groups", "inactive_since", "owners", "owner_group", "owned_since", "budget")
	tokensTable = newTable("tokens", true, func() row { return new(tokenRow) },
		"id", "version", "kind", "digest", "name", "owner", "epoch_credentials", "epoch_person",
		"scopes", "competitions", "cidrs", "parent", "standing", "reason", "revoked_at", "jobs",
		"family", "generation", "predecessor", "successor", "grace_until", "issued_at", "issued_by",
		"lifetime", "renewal", "fixed_end", "idle", "unused", "born_at", "max_lifetime", "rotate_after",
		"enforce_rotation", "note", "renewed_at", "budget", "account")
	levelsTable = newTable("levels", true, func() row { return new(levelRow) },
		"name", "version", "body", "changed_at")
	blocksTable = newTable("blocks", true, func() row { return new(blockRow) },
		"id", "version", "prefix", "note", "made_by", "since", "until", "lifted")
	consentsTable = newTable("consents", true, func() row { return new(consentRow) },
		"id", "version", "giver", "taker", "giver_epoch", "taker_epoch", "giver_credentials", "via", "competitions", "given_at", "until", "ended_at")
	archiveTable = newTable("archive", true, func() row { return new(archiveRow) },
		"id", "version", "digest", "owner", "name", "kind", "ended_at", "why", "archived_at", "segment", "body")
	holdsTable = newTable("holds", true, func() row { return new(holdRow) },
		"id", "version", "kind", "subject", "name", "reason", "made_by", "made_at", "until", "removed_at", "removed_by")
	repliesTable = newTable("replies", false, func() row { return new(replyRow) },
		"key", "request", "ref", "sealed", "until")

	ledgerTables = []*table{levelsTable, blocksTable, principalsTable, consentsTable, tokensTable, archiveTable, holdsTable, repliesTable}
	// followed are the tables that followers are told of, and that the digest counts.
	followed = []*table{levelsTable, blocksTable, principalsTable, consentsTable, tokensTable, archiveTable, holdsTable}
)

// tableOf is the table of the row with an id, which tells by its form.
func tableOf(id string) *table {
	switch {
	case strings.HasPrefix(id, "tok_"):
		return tokensTable
	case strings.HasPrefix(id, "usr_"):
		return principalsTable
	case strings.HasPrefix(id, "blk_"):
		return blocksTable
	case strings.HasPrefix(id, "cns_"):
		return consentsTable
	}
	return levelsTable
}

func tableNamed(name string) *table {
	for _, t := range ledgerTables {
		if t.name == name {
			return t
		}
	}
	return nil
}

func newTable(name string, counted bool, empty func() row, columns ...string) *table {
	all := append(append([]string{}, columns...), "mac", "mac_version", "key_id")
	list := strings.Join(all, ", ")
	var values, sets []string
	for i, c := range all {
		values = append(values, "$"+strconv.Itoa(i+1))
		if i > 0 {
			sets = append(sets, c+" = $"+strconv.Itoa(i+1))
		}
	}
	return &table{
		name: name, columns: columns, counted: counted, empty: empty, members: membersOf(empty()),
		insert:      "INSERT INTO " + name + " (" + list + ") VALUES (" + strings.Join(values, ", ") + ")",
		selectByKey: "SELECT " + list + " FROM " + name + " WHERE " + columns[0] + " = $1",
		selectAll:   "SELECT " + list + " FROM " + name,
		// The version that must still stand is the last parameter.
		update: "UPDATE " + name + " SET " + strings.Join(sets, ", ") + " WHERE " + columns[0] + " = $1 AND " +
			columns[1] + " = $" + strconv.Itoa(len(all)+1),
	}
}

// seal is what proves that a row was written by us: stored beside it.
type seal struct {
	mac     []byte
	version int64
	keyID   string
}

func (s *seal) fields() []any { return []any{&s.mac, &s.version, &s.keyID} }

// stored is a row together with its seal and its encoding.
type stored struct {
	row   row
	seal  seal
	image []byte
}

// named puts the table's name before an image, so that a row of one table is
// never taken for one of another.
func named(t *table, image []byte) []byte {
	return append(appendName(make([]byte, 0, len(t.name)+4+len(image)), t), image...)
}

func appendName(b []byte, t *table) []byte { return append(append(b, t.name...), " 1\n"...) }

// sealed makes the stored form of a row.
func sealed(k *keys.Ring, r row) stored {
	s := stored{row: r, image: image(r)}
	mac := k.RowMAC(named(r.spec(), s.image))
	s.seal = seal{mac: mac[:], version: keys.Version, keyID: k.ID()}
	return s
}

// term is the row's part in the digest of its table.
func term(k *keys.Ring, t *table, image []byte) [32]byte { return k.TableDigest(named(t, image)) }

var errForged = errors.New("a row does not carry our MAC")

// verify computes the image of a row that was read and checks its seal.
func (s *stored) verify(k *keys.Ring) error {
	s.image = image(s.row)
	if !s.seal.proves(k, named(s.row.spec(), s.image)) {
		return errForged
	}
	return nil
}

// proves reports whether the seal is ours, and over this row.
func (s *seal) proves(k *keys.Ring, row []byte) bool {
	mac := k.RowMAC(row)
	return s.keyID == k.ID() && s.version == keys.Version && keys.Equal(mac[:], s.mac)
}

func (s *stored) args(more ...any) []any {
	return append(append(s.row.fields(), s.seal.fields()...), more...)
}

// scanner is *sql.Row or *sql.Rows.
type scanner interface{ Scan(...any) error }

// scan reads one row of the table, without checking its seal.
func scan(t *table, from scanner) (stored, error) {
	s := stored{row: t.empty()}
	err := from.Scan(s.args()...)
	return s, err
}

// list is a list of strings, kept as JSON text.
type list []string

// Scan reads the column.
func (l *list) Scan(v any) error {
	var text string
	switch v := v.(type) {
	case string:
		text = v
	case []byte:
		text = string(v)
	default:
		return errors.New("a list is JSON text")
	}
	*l = nil
	if text == "" {
		return nil
	}
	// Most are plain words, and are read once for each token at a start.
	if inner, ok := plainList(text); ok {
		*l = strings.Split(inner, `","`)
		return nil
	}
	return json.Unmarshal([]byte(text), (*[]string)(l))
}

// plainList is what lies between the first and the last quotation mark of a
// list in which nothing is escaped, so that only "," parts its strings.
func plainList(text string) (inner string, ok bool) {
	inner, begins := strings.CutPrefix(text, `["`)
	inner, ends := strings.CutSuffix(inner, `"]`)
	return inner, begins && ends && !strings.Contains(inner, `\`) && strings.Count(inner, `"`) == 2*strings.Count(inner, `","`)
}

// Value writes the column.
func (l list) Value() (driver.Value, error) {
	if len(l) == 0 {
		return "", nil
	}
	text, err := json.Marshal([]string(l))
	return string(text), err
}
