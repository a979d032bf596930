package document

import (
	"errors"

	"github.com/credresolve/credresolve/internal/json5"
)

// jsonEvents hands what package json5 reads to a finder.
type jsonEvents struct {
	f      *finder
	starts []int // of the open containers
}

func readJSON(f *finder, dialect json5.Dialect) error {
	f.document()
	err := json5.Read(f.src.text, dialect, &jsonEvents{f: f})
	var syntax *json5.SyntaxError
	if errors.As(err, &syntax) {
		return &syntaxError{syntax.Offset, syntax.Reason}
	}
	return err
}

func (e *jsonEvents) Open(object bool, at int) error {
	kind := frameList
	if object {
		kind = frameMap
	}
	e.starts = append(e.starts, at)
	return e.f.open(kind, at, boxStyle{layout: layoutFlow}, props{after: -1})
}

func (e *jsonEvents) Close(end int) {
	last := len(e.starts) - 1
	e.f.close(end, span{e.starts[last] + 1, end - 1})
	e.starts = e.starts[:last]
}

func (e *jsonEvents) Key(name string, start, _ int) { e.f.key(start, name, start, scalarText) }
func (e *jsonEvents) Item(at int)                   { e.f.item(at) }
func (e *jsonEvents) Comma(at int)                  { e.f.comma(at) }

// jsonScalars are the kinds of scalars by those of package json5.
var jsonScalars = [...]scalarKind{json5.Null: scalarNull, json5.Bool: scalarBool, json5.Number: scalarNumber, json5.String: scalarText}

func (e *jsonEvents) Scalar(kind json5.Kind, text string, start, end int) error {
	return e.f.scalar(scalar{kind: jsonScalars[kind], text: text, value: span{start, end}, props: props{after: -1}})
}
