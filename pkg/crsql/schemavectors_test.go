package crsql

import (
	"encoding/hex"
	"flag"
	"os"
	"strings"
	"testing"

	"github.com/crmesh/crmesh/pkg/crsql/changeset"
)

var rewriteVectors = flag.Bool("rewrite", false, "write the files in testdata anew from the code")

// TestSchemaVectors makes the schemas of testdata/schemas.txt and compares their hashes, and how they differ. The engine of
// the browser does so too.
func TestSchemaVectors(t *testing.T) {
	const path = "testdata/schemas.txt"
	file, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	schemas := map[string]Schema{}
	blocks := strings.Split(strings.TrimSpace(string(file)), "\n\n")
	for i, block := range blocks {
		head, rest, _ := strings.Cut(block, "\n")
		words := strings.Fields(head)
		switch words[0] {
		case "schema":
			n := newNode(t, words[1])
			n.script(strings.ReplaceAll(strings.ReplaceAll(rest, "\nCREATE", ";\nCREATE"), "\nSELECT", ";\nSELECT"))
			schema := n.state().Schema
			schemas[words[1]] = schema
			words[2] = hex.EncodeToString(schema.Hash[:])
			blocks[i] = strings.Join(words, " ") + "\n" + rest
		case "differ":
			list := changeset.SchemaDifferences(schemas[words[1]].Tables, schemas[words[2]].Tables)
			blocks[i] = strings.Join(append([]string{head}, list...), "\n")
			if equal := schemas[words[1]].Hash == schemas[words[2]].Hash; equal != (len(list) == 0) {
				t.Errorf("%s: %d differences, and the hashes are equal: %v", head, len(list), equal)
			}
		}
	}
	got := strings.Join(blocks, "\n\n") + "\n"
	if *rewriteVectors {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	} else if got != string(file) {
		t.Errorf("the schemas are\n%s", got)
	}
	for _, same := range [][2]string{{"note", "note-order"}, {"note", "note-null"}, {"two", "two-turned"}} {
		if schemas[same[0]].Hash != schemas[same[1]].Hash {
			t.Errorf("%v have two hashes", same)
		}
	}
	if len(schemas) < 12 || schemas["none"].Hash != [32]byte{} {
		t.Errorf("%d schemas, and that without CRRs has the hash %x", len(schemas), schemas["none"].Hash)
	}
}
