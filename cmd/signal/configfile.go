package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"github.com/alecthomas/kong"
	"go.yaml.in/yaml/v3"

	"github.com/crmesh/crmesh/pkg/signaling/signalserver"
)

// configFlag names a file whose settings stand in for flags that are neither given nor in the environment.
type configFlag struct {
	Config string `placeholder:"FILE" restart:"" help:"YAML file of settings: 'max-rooms: 500' in it is --max-rooms 500. Flags and the environment go before it. It is read again on SIGHUP."`

	file  *configFile  // nil: there is none
	flags []*kong.Flag // of the command
}

// BeforeResolve reads the file. It is kong's hook for that.
func (f *configFlag) BeforeResolve(k *kong.Context) error {
	f.flags = k.Selected().Flags
	path := ""
	for _, flag := range f.flags {
		if flag.Name == "config" {
			path, _ = k.FlagValue(flag).(string)
		}
	}
	if path == "" {
		return nil
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("the file of --config cannot be read: %w", err)
	}
	if f.file, err = parseConfigFile(path, text, f.flags); err != nil {
		return err
	}
	k.AddResolver(f.file)
	return nil
}

// configFile is the settings of a file, each fit for the flag of its name.
type configFile struct {
	path     string
	settings map[string]setting
	taken    map[string]bool // the settings that nothing went before
}

type setting struct {
	line  int
	value any // as kong wants it: a string, or []any of strings
}

// parseConfigFile returns an error that names file, line and setting for the first thing that is wrong. It quotes no value
// of a secret.
func parseConfigFile(path string, text []byte, flags []*kong.Flag) (*configFile, error) {
	c := &configFile{path: path, settings: map[string]setting{}, taken: map[string]bool{}}
	var document yaml.Node
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	switch err := decoder.Decode(&document); {
	case errors.Is(err, io.EOF):
		return c, nil // nothing, or comments only
	case err != nil:
		return nil, c.syntaxError(err)
	}
	root := document.Content[0]
	if root.Kind == yaml.ScalarNode && root.ShortTag() == "!!null" {
		return c, nil
	}
	if root.Kind != yaml.MappingNode {
		return nil, c.errorAt(root.Line, "the file must be lines like 'max-rooms: 500', with a space after the colon")
	}
	for i := 0; i < len(root.Content); i += 2 {
		key, value := root.Content[i], root.Content[i+1]
		name := key.Value
		at := slices.IndexFunc(flags, func(f *kong.Flag) bool { return f.Name == name })
		if at < 0 || name == "help" || name == "config" {
			hint := "'signal serve --help' names all, here without the dashes"
			if fixed := strings.ToLower(strings.TrimLeft(strings.ReplaceAll(name, "_", "-"), "-")); fixed != name &&
				slices.ContainsFunc(flags, func(f *kong.Flag) bool { return f.Name == fixed }) {
				hint = "write " + fixed
			}
			return nil, c.errorAt(key.Line, "there is no setting %q; %s", name, hint)
		}
		if earlier, twice := c.settings[name]; twice {
			return nil, c.errorAt(key.Line, "%s is set a second time, after line %d; keep one of them", name, earlier.line)
		}
		v, err := settingValue(flags[at], value)
		if err != nil {
			return nil, c.errorAt(value.Line, "%s: %w", name, err)
		}
		c.settings[name] = setting{line: key.Line, value: v}
	}
	if err := decoder.Decode(&document); err == nil {
		return nil, c.errorAt(document.Line, "a second document begins with ---; the settings must be one")
	} else if !errors.Is(err, io.EOF) {
		return nil, c.syntaxError(err)
	}
	return c, nil
}

// settingValue returns the value for kong, once it has seen that the flag takes it.
func settingValue(flag *kong.Flag, node *yaml.Node) (any, error) {
	var value any
	switch {
	case node.Kind == yaml.SequenceNode && flag.IsSlice():
		list := []any{}
		for _, item := range node.Content {
			text, err := scalarText(item)
			if err != nil {
				return nil, err
			}
			list = append(list, text)
		}
		value = list
	case node.Kind == yaml.SequenceNode:
		return nil, errors.New("it takes one value, no list")
	default:
		text, err := scalarText(node)
		if err != nil {
			return nil, err
		}
		value = text
	}
	// The flag itself gets it later, if nothing goes before the file.
	scratch := reflect.New(flag.Target.Type()).Elem()
	scan := kong.Scan().PushTyped(value, kong.FlagValueToken)
	if err := flag.Mapper.Decode(&kong.DecodeContext{Value: flag.Value, Scan: scan}, scratch); err != nil {
		return nil, err
	}
	if flag.Enum != "" && !flag.EnumMap()[scratch.String()] {
		return nil, fmt.Errorf("it must be one of %s", strings.Join(flag.EnumSlice(), ", "))
	}
	return value, nil
}

// scalarText returns a value as it stands in the file, which is what a flag would be given: 0660 stays that. What YAML makes
// something else of, unasked, is refused: a secret may begin with any character.
func scalarText(node *yaml.Node) (string, error) {
	switch {
	case node.Anchor != "" || node.Kind == yaml.AliasNode || node.Style&yaml.TaggedStyle != 0:
		return "", errors.New("a value that begins with *, & or ! must be in quotes")
	case node.Kind != yaml.ScalarNode:
		return "", errors.New("it must be a value, not settings of its own")
	case node.ShortTag() == "!!null":
		return "", errors.New("it has no value; delete the line, or write '' for an empty one")
	}
	return node.Value, nil
}

// errorAt is an error about a line of the file.
func (c *configFile) errorAt(line int, format string, args ...any) error {
	return fmt.Errorf("%s:%d: %w", c.path, line, fmt.Errorf(format, args...))
}

// yamlError takes the parser's errors apart. The one about anchors quotes what may be the end of a secret.
var (
	yamlError   = regexp.MustCompile(`^yaml: (?:line (\d+): )?(.*)$`)
	yamlAnchors = regexp.MustCompile(`unknown anchor .* referenced`)
)

func (c *configFile) syntaxError(err error) error {
	text, line := yamlAnchors.ReplaceAllString(err.Error(), "a value that begins with * must be in quotes"), ""
	if m := yamlError.FindStringSubmatch(text); m != nil {
		text = m[2]
		if m[1] != "" {
			line = ":" + m[1]
		}
	}
	return fmt.Errorf("%s%s: this is not YAML: %s; write lines like 'max-rooms: 500', and put a value with special characters in quotes",
		c.path, line, text)
}

// Validate is kong's; there is nothing left to do.
func (*configFile) Validate(*kong.Application) error { return nil }

// Resolve is kong's question for a flag that is not on the command line.
func (c *configFile) Resolve(_ *kong.Context, _ *kong.Path, flag *kong.Flag) (any, error) {
	s, ok := c.settings[flag.Name]
	if !ok || fromEnvironment(flag) {
		return nil, nil
	}
	c.taken[flag.Name] = true
	return s.value, nil
}

// origin is the place of a setting that is in force, "" if the flag is not set by the file.
func (f *configFlag) origin(flag string) string {
	if f.file == nil || !f.file.taken[flag] {
		return ""
	}
	return fmt.Sprintf("%s:%d", f.file.path, f.file.settings[flag].line)
}

// explain says for each of the errors that are joined in err where the value comes from that is wrong.
func (f *serve) explain(err error) error {
	all := []error{err}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		all = joined.Unwrap()
	}
	for i, e := range all {
		name := ""
		var ofFlag *flagError
		var ofField *signalserver.FieldError
		switch {
		case errors.As(e, &ofFlag):
			name = ofFlag.flag
		case errors.As(e, &ofField):
			name = f.flagOf(ofField.Field)
		}
		if place := f.origin(name); place != "" {
			all[i] = fmt.Errorf("%s: %s: %w", place, name, e)
		} else if name != "" {
			all[i] = fmt.Errorf("%w (--%s)", e, name)
		}
	}
	return errors.Join(all...)
}

// flagError says what is wrong with a flag.
type flagError struct {
	flag string
	err  error
}

func (e *flagError) Error() string { return e.err.Error() }
func (e *flagError) Unwrap() error { return e.err }

// flagOf returns the name of the flag whose field is named like that of signalserver.Config; "" if there is none.
func (f *serve) flagOf(field string) string {
	target := reflect.ValueOf(f).Elem().FieldByName(field)
	for _, flag := range f.flags {
		if target.IsValid() && flag.Target.Addr().Pointer() == target.Addr().Pointer() {
			return flag.Name
		}
	}
	return ""
}
