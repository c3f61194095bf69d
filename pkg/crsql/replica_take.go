package crsql

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/crmesh/crmesh/pkg/crsql/changeset"
)

// AcceptSchema says what a replica takes of the schemas that peers offer.
type AcceptSchema string

// What is accepted.
const (
	AcceptNever    AcceptSchema = "never"    // nothing, not even tables that are missing
	AcceptAdditive AcceptSchema = "additive" // tables and columns that are missing; nothing is ever changed or dropped
	AcceptAny      AcceptSchema = "any"      // the whole schema, if it is newer than the own one
)

// SchemaOffer is the schema of a peer.
type SchemaOffer struct {
	Hash       [32]byte
	Generation int64
	Tables     []TableSchema
}

// SchemaTaken says what TakeSchema did.
type SchemaTaken struct {
	Report  MigrateReport
	Refused []*SchemaError // what was not taken though it was to be, and why
}

// TakeSchema takes of a peer's schema what accept lets it. Of the tables only statements that CreateTables would run are
// run; no offer makes the database emit more than MaxSchemaChanges changes, gives it more than MaxTables CRRs, or touches a
// table that is no CRR. What is refused is told, and costs the rest nothing.
//
// AcceptAdditive creates tables, and adds columns that may be NULL or have a literal as their default. It leaves out what
// was dropped here on purpose, in a generation above the offer's (see Migrate). AcceptAny makes the CRRs those of the
// offer, rows and all, if its generation is above the own one, or the same with a higher hash; in generation 0, which
// nobody made on purpose, it is as AcceptAdditive. So databases that take from each other come to rest.
//
// TakeSchema blocks as DB.Write does. Changes that were parked for the lack of what was taken wait for ReplayParked.
func (r *Replica) TakeSchema(ctx context.Context, offer SchemaOffer, accept AcceptSchema) (SchemaTaken, error) {
	var taken SchemaTaken
	own, err := r.Schema(ctx)
	if err != nil {
		return taken, err
	}
	if offer.Hash != own.Hash {
		switch {
		case accept == AcceptAny && own.Hash != [32]byte{} && max(own.Generation, offer.Generation) > 0:
			if newer(offer, own) {
				err = r.takeWhole(ctx, offer, &taken)
			}
		case accept == AcceptAdditive || accept == AcceptAny:
			err = r.takeMissing(ctx, offer, &taken)
		}
	}
	if err != nil {
		return taken, err
	}
	if !taken.Report.Empty() {
		r.db.notify()
	}
	return taken, r.noteOffer(ctx, offer)
}

func newer(offer SchemaOffer, own Schema) bool {
	return offer.Generation > own.Generation ||
		offer.Generation == own.Generation && bytes.Compare(offer.Hash[:], own.Hash[:]) > 0
}

// noteOffer remembers the generation of an offer, as the own one where the schema is the same.
func (r *Replica) noteOffer(ctx context.Context, offer SchemaOffer) error {
	if offer.Generation <= 0 {
		return nil
	}
	note := func(write bool) (needed bool, err error) {
		in := r.db.snapshot
		if write {
			in = r.db.transact
		}
		err = in(ctx, func(s *session) error {
			own, err := r.readSchema(s.engine)
			if err != nil {
				return err
			}
			seen, err := s.engine.metaNumber(metaSeen)
			if err != nil {
				return err
			}
			adopt := own.Hash == offer.Hash && offer.Generation > own.Generation
			needed = adopt || offer.Generation > seen
			if !write || !needed {
				return nil
			}
			generation := min(offer.Generation, MaxGeneration)
			if adopt {
				if err := s.engine.setMeta(metaGeneration, generation); err != nil {
					return err
				}
			}
			return s.engine.raiseMeta(metaSeen, generation)
		})
		return needed, err
	}
	needed, err := note(false)
	if err == nil && needed {
		_, err = note(true)
	}
	return err
}

// takeMissing takes the tables and columns that are missing, each table in a transaction of its own.
func (r *Replica) takeMissing(ctx context.Context, offer SchemaOffer, taken *SchemaTaken) error {
	for i := range offer.Tables {
		t := &offer.Tables[i]
		var report MigrateReport
		err := r.db.transact(ctx, func(s *session) (err error) {
			report, err = s.takeTable(ctx, t, offer.Generation)
			return err
		})
		var refused *SchemaError
		switch {
		case errors.As(err, &refused):
			taken.Refused = append(taken.Refused, refused)
			continue
		case err != nil:
			return err
		}
		all := &taken.Report
		all.TablesCreated = append(all.TablesCreated, report.TablesCreated...)
		all.CRRs = append(all.CRRs, report.CRRs...)
		all.ColumnsAdded = append(all.ColumnsAdded, report.ColumnsAdded...)
		all.MadeAgain = append(all.MadeAgain, report.MadeAgain...)
		all.Changes += report.Changes
	}
	return nil
}

// takeTable creates a table, or adds the columns that it lacks.
func (s *session) takeTable(ctx context.Context, t *TableSchema, generation int64) (report MigrateReport, err error) {
	e := s.engine
	if dropped, err := e.droppedSince(t.Name, "", generation); err != nil || dropped {
		return report, err
	}
	exists, err := e.query("SELECT 1 FROM main.sqlite_master WHERE name = ? COLLATE NOCASE", t.Name)
	if err != nil {
		return report, err
	}
	switch {
	case len(exists) == 0:
		st, err := createStatement(*t)
		if err != nil {
			return report, err
		}
		if len(e.order) >= MaxTables {
			return report, &SchemaError{Table: t.Name, Reason: fmt.Sprintf("there are %d tables that sync already, and peers may add no more", len(e.order))}
		}
		if err := s.createCRR(ctx, t.Name, st.sql); err != nil {
			return report, err
		}
		report.TablesCreated, report.CRRs = []string{t.Name}, []string{t.Name}
	case e.tables[t.Name] == nil:
		return report, nil // a table of that name that does not sync
	default:
		if report.ColumnsAdded, err = s.addColumns(ctx, t, generation); err != nil || len(report.ColumnsAdded) == 0 {
			return report, err
		}
	}
	was := TableSchema{Name: t.Name}
	for _, c := range t.Columns {
		if len(report.TablesCreated) == 0 && !slices.Contains(report.ColumnsAdded, t.Name+"."+c.Name) {
			was.Columns = append(was.Columns, c)
		}
	}
	before := []TableSchema{was}
	if len(report.TablesCreated) > 0 {
		before = nil
	}
	if report.MadeAgain, err = e.madeAgain(before, []TableSchema{*t}); err != nil {
		return report, err
	}
	report.Changes, err = e.emits(t.Name)
	return report, err
}

// emits counts the changes of the transaction, and refuses too many.
func (e *engine) emits(table string) (int64, error) {
	changes, err := e.pendingChanges()
	if err == nil && changes > MaxSchemaChanges {
		err = &SchemaError{Table: table, Reason: fmt.Sprintf("%d changes would go out to all peers for it, and more than %d need a person: "+
			"migrate this database by hand, with peer run --schema", changes, MaxSchemaChanges)}
	}
	return changes, err
}

// droppedSince reports whether a table or column was dropped here on purpose, in a generation above.
func (e *engine) droppedSince(table, column string, generation int64) (bool, error) {
	dropped, err := e.metaNumber(metaDropped + droppedName(table, column))
	return dropped > generation, err
}

// addColumns adds to a CRR those columns that it lacks and that may be added, and returns them as "table.column".
func (s *session) addColumns(ctx context.Context, t *TableSchema, generation int64) ([]string, error) {
	e := s.engine
	own, err := e.readColumns(t.Name)
	if err != nil {
		return nil, err
	}
	var add []changeset.Column
	var why string
	for _, c := range changeset.MissingColumns(&TableSchema{Columns: own}, t) {
		dropped, err := e.droppedSince(t.Name, c.Name, generation)
		if err != nil {
			return nil, err
		}
		switch reason := c.Addable(); {
		case dropped:
		case reason != "":
			why = "the column " + nameText(c.Name) + " cannot be added: " + reason
		default:
			add = append(add, c)
		}
	}
	if len(add) == 0 {
		if why != "" {
			return nil, &SchemaError{Table: t.Name, Reason: why}
		}
		return nil, nil
	}
	sql := []string{"SELECT crsql_begin_alter(" + literal(t.Name) + ")"}
	var names []string
	for i := range add {
		sql = append(sql, "ALTER TABLE main."+ident(t.Name)+" ADD COLUMN "+add[i].Definition())
		names = append(names, t.Name+"."+add[i].Name)
	}
	for _, sql := range append(sql, "SELECT crsql_commit_alter("+literal(t.Name)+")") {
		if err := s.run(ctx, sql); err != nil {
			if ctx.Err() != nil || !s.engine.refusable(err) {
				return nil, err
			}
			return nil, &SchemaError{Table: t.Name, Reason: err.Error()}
		}
	}
	// What a reading of a type or default may have missed shows in what it did.
	made, err := e.readColumns(t.Name)
	if err != nil {
		return nil, err
	}
	want := []TableSchema{{Name: t.Name, Columns: append(own, add...)}}
	if changeset.SchemaHash(want) != changeset.SchemaHash([]TableSchema{{Name: t.Name, Columns: made}}) {
		return nil, &SchemaError{Table: t.Name, Reason: "its columns become others than it says"}
	}
	return names, nil
}

// takeWhole makes the CRRs those of the offer. What is refused leaves the schema as it is.
func (r *Replica) takeWhole(ctx context.Context, offer SchemaOffer, taken *SchemaTaken) error {
	refuse := func(table, reason string) error { return &SchemaError{Table: table, Reason: reason} }
	err := r.db.transact(ctx, func(s *session) error {
		e := s.engine
		if changeset.SchemaHash(offer.Tables) != offer.Hash {
			return refuse("", "the schema's hash is not that of its tables, or some of them were too large to be sent")
		}
		var text strings.Builder
		for _, t := range offer.Tables {
			st, err := createStatement(t)
			if err != nil {
				return err
			}
			local, err := e.query("SELECT 1 FROM main.sqlite_master WHERE name = ? COLLATE NOCASE", t.Name)
			if err != nil {
				return err
			}
			if len(local) > 0 && e.tables[t.Name] == nil {
				return refuse(t.Name, "there is a table of that name here that does not sync")
			}
			fmt.Fprintf(&text, "%s;\nSELECT crsql_as_crr(%s);\n", st.sql, literal(t.Name))
		}
		before, err := r.readSchema(e)
		if err != nil {
			return err
		}
		if !newer(offer, before) {
			return nil
		}
		if taken.Report, err = s.migrate(ctx, text.String(), keepLocal); err != nil {
			if ctx.Err() != nil || !s.engine.refusable(err) {
				return err
			}
			return refuse("", err.Error())
		}
		if _, err := e.emits(""); err != nil {
			return err
		}
		if err := s.current(); err != nil {
			return err
		}
		after, err := e.readTableSchemas()
		if err != nil {
			return err
		}
		if changeset.SchemaHash(after) != offer.Hash {
			return refuse("", "its tables become others than it says")
		}
		if taken.Report.MadeAgain, err = e.madeAgain(before.Tables, after); err != nil {
			return err
		}
		_, err = e.changedTo(before, after, min(offer.Generation, MaxGeneration))
		return err
	})
	if refused := (*SchemaError)(nil); errors.As(err, &refused) {
		taken.Report, taken.Refused = MigrateReport{}, append(taken.Refused, refused)
		return nil
	}
	return err
}

// keepLocal keeps what is no business of other databases.
var keepLocal = &keeper{
	table:   func(_ string, crr bool) bool { return !crr },
	column:  func(string, string) bool { return false },
	index:   func(string) bool { return true },
	ordered: true,
}
