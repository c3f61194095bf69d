package syncproto

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"testing"

	"github.com/crmesh/crmesh/pkg/crsql/changeset"
)

// The descriptions of messages in testdata: JSON with the fields of the structs in camelCase, 64-bit integers as
// decimal strings, bytes and sites as hex.

type object map[string]any

func describe(m Message) string {
	b, err := json.Marshal(describeMessage(m))
	if err != nil {
		panic(err)
	}
	return string(b)
}

func describeMessage(m Message) object {
	switch m := m.(type) {
	case *Hello:
		return object{
			"type": "hello", "site": m.Site.String(), "writer": m.Writer, "feed": m.Feed, "busy": m.Busy,
			"proof": hex.EncodeToString(m.Proof), "schemaHash": hex.EncodeToString(m.SchemaHash[:]),
			"maxMessage": dec(int64(m.MaxMessage)), "resume": dec(m.Resume),
			"neighbours": describeSites(m.Neighbours), "vector": describeVector(m.Vector),
		}
	case *Changes:
		groups := []object{}
		for _, g := range m.Groups {
			changes := []object{}
			for _, c := range g.Changes {
				changes = append(changes, object{
					"table": c.Table, "pk": hex.EncodeToString(c.PK), "cid": c.CID, "val": describeValue(c.Val),
					"colVersion": dec(c.ColVersion), "cl": dec(c.CL), "seq": dec(c.Seq), "site": c.Site.String(),
				})
			}
			groups = append(groups, object{"origin": g.Origin.String(), "version": dec(g.Version), "changes": changes})
		}
		spans := []object{}
		for _, s := range m.Spans {
			spans = append(spans, object{
				"origin": s.Origin.String(), "after": dec(s.After), "version": dec(s.Version), "deps": describeVector(s.Deps),
			})
		}
		return object{
			"type": "changes", "reached": dec(m.Reached), "remaining": dec(m.Remaining), "groups": groups,
			"claims": describeVector(m.Claims), "deps": describeVector(m.Deps), "spans": spans,
		}
	case *Have:
		return object{
			"type": "have", "feed": m.Feed, "busy": m.Busy, "applied": dec(m.Applied), "delta": describeVector(m.Delta),
			"hasNeighbours": m.HasNeighbours, "neighbours": describeSites(m.Neighbours),
		}
	case *Prune:
		return object{"type": "prune", "prune": describeSites(m.Prune), "graft": describeSites(m.Graft)}
	case *Error:
		return object{"type": "error", "code": int(m.Code), "sentence": m.Sentence}
	case *Bye:
		return object{"type": "bye", "sentence": m.Sentence}
	case *Relay:
		return object{
			"type": "relay", "hops": int(m.Hops), "from": hex.EncodeToString(m.From[:]), "to": hex.EncodeToString(m.To[:]),
			"sealed": hex.EncodeToString(m.Sealed),
		}
	case *Need:
		return object{"type": "need", "needed": m.Needed}
	case *Schema:
		tables := []object{}
		for _, t := range m.Tables {
			columns := []object{}
			for _, c := range t.Columns {
				var def any
				if c.HasDefault {
					def = c.Default
				}
				columns = append(columns, object{"name": c.Name, "type": c.Type, "notNull": c.NotNull, "default": def, "key": c.Key})
			}
			tables = append(tables, object{"name": t.Name, "sql": t.SQL, "columns": columns})
		}
		return object{"type": "schema", "hash": hex.EncodeToString(m.Hash[:]), "generation": dec(m.Generation), "tables": tables}
	case *DigestRequest:
		prefixes := []object{}
		for _, p := range m.Prefixes {
			prefixes = append(prefixes, object{"place": hex.EncodeToString(p.Place[:]), "len": int(p.Len)})
		}
		return object{"type": "digestRequest", "id": dec(m.ID), "table": m.Table, "prefixes": prefixes}
	case *DigestAnswer:
		tables, parts := []object{}, []object{}
		for _, t := range m.Tables {
			tables = append(tables, object{
				"table": t.Table, "columns": describeDigest(t.Columns), "sum": describeSum(t.Sum), "stray": dec(t.Stray),
			})
		}
		for _, p := range m.Parts {
			parts = append(parts, describePart(p))
		}
		return object{
			"type": "digestAnswer", "id": dec(m.ID), "kind": int(m.Kind), "vector": describeVector(m.Vector), "tables": tables, "parts": parts,
		}
	case *Resend:
		places := []string{}
		for _, p := range m.Places {
			places = append(places, hex.EncodeToString(p[:]))
		}
		return object{"type": "resend", "table": m.Table, "places": places}
	}
	panic(fmt.Sprintf("no description of %T", m))
}

func describeDigest(d changeset.Digest) string { return hex.EncodeToString(d.Append(nil)) }

func describeSum(s changeset.Sum) object {
	return object{"count": dec(s.Count), "digest": describeDigest(s.Digest)}
}

func describePart(p changeset.Part) object {
	if p.Children != nil {
		children := []object{}
		for _, s := range p.Children {
			children = append(children, describeSum(s))
		}
		return object{"children": children}
	}
	rows := []object{}
	for _, r := range p.Rows {
		rows = append(rows, object{
			"place": hex.EncodeToString(r.Place[:]), "key": hex.EncodeToString(r.Key), "cl": dec(r.CL), "versions": dec(r.Versions),
			"digest": describeDigest(r.Digest),
		})
	}
	return object{"rows": rows}
}

func dec(v int64) string { return strconv.FormatInt(v, 10) }

func describeSites(sites []SiteID) []string {
	out := []string{}
	for _, s := range sites {
		out = append(out, s.String())
	}
	return out
}

func describeVector(v Vector) any {
	if v == nil {
		return nil
	}
	out := object{}
	for site, version := range v {
		out[site.String()] = dec(version)
	}
	return out
}

func describeValue(v changeset.Value) object {
	switch v.Kind() {
	case changeset.KindInteger:
		return object{"int": dec(v.Int64())}
	case changeset.KindReal:
		return object{"real": fmt.Sprintf("%016x", math.Float64bits(v.Float64()))}
	case changeset.KindText:
		return object{"text": hex.EncodeToString(v.Bytes())}
	case changeset.KindBlob:
		return object{"blob": hex.EncodeToString(v.Bytes())}
	}
	return object{"null": true}
}

func TestDescribeKnowsEveryValue(t *testing.T) {
	for _, v := range testValues {
		if got := describeValue(v); len(got) != 1 {
			t.Errorf("%v: %v", v, got)
		}
	}
}
