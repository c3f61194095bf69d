package meshtest

import (
	"fmt"
	"reflect"
	"strings"
)

// Tally counts what happened in runs.
type Tally struct {
	Runs, Messages                          int
	Largest                                 int // peers of the largest room; the others are sums
	Cuts, Splits, Crashes, Joined, Left     int
	Chunks, Held, Resumed                   int // reads in the midst of a walk, entries held back, walks that began where one had ended
	PutBack, Twins, Feuds, Renewals, Parted int // machines put back, started twice; see feud; new sites; and see sim.parted
}

// Add adds what happened in other runs.
func (t *Tally) Add(o Tally) {
	largest := max(t.Largest, o.Largest)
	sum, more := reflect.ValueOf(t).Elem(), reflect.ValueOf(o)
	for i := range sum.NumField() {
		sum.Field(i).SetInt(sum.Field(i).Int() + more.Field(i).Int())
	}
	t.Largest = largest
}

// String names every count.
func (t Tally) String() string {
	var b strings.Builder
	v := reflect.ValueOf(t)
	for i := range v.NumField() {
		fmt.Fprintf(&b, "%s %d, ", strings.ToLower(v.Type().Field(i).Name), v.Field(i).Int())
	}
	return strings.TrimSuffix(b.String(), ", ")
}

// Missing names what never happened.
func (t Tally) Missing() (names []string) {
	v := reflect.ValueOf(t)
	for i := range v.NumField() {
		if v.Field(i).Int() == 0 {
			names = append(names, strings.ToLower(v.Type().Field(i).Name))
		}
	}
	return names
}
