package document

import (
	"errors"
	"sort"
	"strings"
	"unicode/utf8"

	"github.com/credresolve/credresolve/backend"
)

// maxFaults bounds the errors that are reported for one document.
const maxFaults = 20

// source is a document's text and its name. It is not safe for concurrent use.
type source struct {
	name  string
	text  string
	lines []int // offsets of the beginnings of lines, made when first needed

	last, lastLine, lastStart, lastColumn int // what place was last asked: lines may be long, and places mostly go forward
}

// place gives line and column, from 1, of an offset.
func (s *source) place(offset int) (line, column int) {
	if s.lines == nil {
		s.lines = make([]int, 1, 1+strings.Count(s.text, "\n"))
		for i := range len(s.text) {
			if s.text[i] == '\n' {
				s.lines = append(s.lines, i+1)
			}
		}
	}
	line = s.lastLine
	if line > 0 && line < len(s.lines) && s.lines[line] <= offset {
		line++
	}
	if line == 0 || offset < s.lines[line-1] || line < len(s.lines) && s.lines[line] <= offset {
		line = sort.SearchInts(s.lines, offset+1)
	}
	start := s.lines[line-1]
	if start == 0 && strings.HasPrefix(s.text, bom) && offset >= len(bom) {
		start = len(bom)
	}
	from, column := start, 1
	if s.lastColumn > 0 && s.lastStart == start && s.last <= offset {
		from, column = s.last, s.lastColumn
	}
	column += utf8.RuneCountInString(s.text[from:offset])
	s.lastLine = line
	s.last, s.lastStart, s.lastColumn = offset, start, column
	return line, column
}

const bom = "\ufeff"

// fault is one thing that is wrong in a document. Its reason holds no text of the document but keys.
type fault struct {
	offset         int
	path           string
	code           backend.Code
	reason, remedy string
}

func (s *source) report(f fault) *backend.Error {
	line, column := s.place(f.offset)
	if f.path != "" {
		f.path += ": "
	}
	if f.code == "" {
		f.code = backend.CodeUsage
	}
	e := backend.Errorf(f.code, "%s:%d:%d: %s%s", s.name, line, column, f.path, f.reason)
	e.Remedy = f.remedy
	return e
}

// faults gathers what is wrong in a document.
type faults struct {
	list []fault
	more int
}

func (f *faults) add(one fault) {
	if len(f.list) == maxFaults {
		f.more++
		return
	}
	f.list = append(f.list, one)
}

func (f *faults) addAll(others faults) {
	for _, one := range others.list {
		f.add(one)
	}
	f.more += others.more
}

func (f *faults) len() int { return len(f.list) + f.more }

// err joins the faults in the order of the document; nil when there are none.
func (f *faults) err(s *source) error {
	if len(f.list) == 0 {
		return nil
	}
	sort.SliceStable(f.list, func(i, j int) bool { return f.list[i].offset < f.list[j].offset })
	errs := make([]error, 0, len(f.list)+1)
	for _, one := range f.list {
		errs = append(errs, s.report(one))
	}
	if f.more > 0 {
		errs = append(errs, backend.Errorf(backend.CodeUsage, "%s: and %d more errors", s.name, f.more))
	}
	return errors.Join(errs...)
}

// syntaxError stops the reading of a document.
type syntaxError struct {
	offset int
	reason string
}

func (e *syntaxError) Error() string { return e.reason }
