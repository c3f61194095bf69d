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
		return object{
			"type": "changes", "reached": dec(m.Reached), "remaining": dec(m.Remaining), "groups": groups,
			"claims": describeVector(m.Claims), "deps": describeVector(m.Deps),
		}
	case *Have:
		return object{
			"type": "have", "feed": m.Feed, "busy": m.Busy, "applied": dec(m.Applied), "delta": describeVector(m.Delta),
			"hasNeighbours": m.HasNeighbours, "neighbours": describeSites(m.Neighbours),
		}
	case *Error:
		return object{"type": "error", "code": int(m.Code), "sentence": m.Sentence}
	case *Bye:
		return object{"type": "bye", "sentence": m.Sentence}
	case *Schema:
		tables := []object{}
		for _, t := range m.Tables {
			tables = append(tables, object{"name": t.Name, "sql": t.SQL})
		}
		return object{"type": "schema", "hash": hex.EncodeToString(m.Hash[:]), "tables": tables}
	}
	panic(fmt.Sprintf("no description of %T", m))
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
