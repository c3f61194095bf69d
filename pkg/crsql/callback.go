package crsql

import (
	"fmt"
	"reflect"
)

// maxNesting is how deep SQL functions run within each other: a trigger that one of them sets off calls the next. Each
// level takes C's stack, of which SQLite knows nothing.
const maxNesting = 16

var (
	anyType   = reflect.TypeFor[any]()
	errorType = reflect.TypeFor[error]()
)

// callback makes f, a function as mattn registers them, safe to be called by C code. A panic would have to pass through
// that on its way up, which ends the process or leaves SQLite's mutex locked: it becomes an error.
func (e *engine) callback(name string, f any) any {
	switch f := f.(type) { // what runs for each row has one of these forms
	case func(...any) (any, error):
		return func(args ...any) (result any, err error) {
			if e.nesting >= maxNesting {
				return nil, tooDeep(name)
			}
			e.nesting++
			defer e.called(name, &err)
			return f(args...)
		}
	case func(...any) int64:
		return func(args ...any) (result int64, err error) {
			if e.nesting >= maxNesting {
				return 0, tooDeep(name)
			}
			e.nesting++
			defer e.called(name, &err)
			return f(args...), nil
		}
	}
	value := reflect.ValueOf(f)
	kind := value.Type()
	call, in := value.Call, make([]reflect.Type, kind.NumIn())
	if kind.IsVariadic() {
		call = value.CallSlice
	}
	for i := range in {
		in[i] = kind.In(i)
	}
	made := reflect.FuncOf(in, []reflect.Type{anyType, errorType}, kind.IsVariadic())
	return reflect.MakeFunc(made, func(args []reflect.Value) []reflect.Value {
		result, err := e.safely(name, func() (any, error) {
			out := call(args)
			if len(out) == 2 {
				err, _ := out[1].Interface().(error)
				return out[0].Interface(), err
			}
			return out[0].Interface(), nil
		})
		returned := []reflect.Value{reflect.Zero(anyType), reflect.Zero(errorType)}
		if err != nil {
			returned[1] = reflect.ValueOf(&err).Elem()
		} else if result != nil {
			returned[0] = reflect.ValueOf(&result).Elem()
		}
		return returned
	}).Interface()
}

func (e *engine) safely(name string, f func() (any, error)) (result any, err error) {
	if e.nesting >= maxNesting {
		return nil, tooDeep(name)
	}
	e.nesting++
	defer e.called(name, &err)
	return f()
}

// called is deferred by each callback.
func (e *engine) called(name string, err *error) {
	e.nesting--
	if p := recover(); p != nil {
		*err = fmt.Errorf("%s: internal error: %v", name, p)
	}
	if *err != nil && noRoom(*err) {
		e.full = true
	}
}

func tooDeep(name string) error {
	return fmt.Errorf("%s: triggers and functions call each other more than %d deep: look for a trigger that sets itself off", name, maxNesting)
}
