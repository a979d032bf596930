package json5

import "errors"

// Edit is a change of one value.
type Edit struct {
	// Path leads to the value: keys of objects, decimal indices of arrays. An index that is the array's length appends.
	Path []string
	// Value is what stands there afterwards, anything that encoding/json takes. Missing objects on the way are created.
	Value any
	// Delete takes the value out, with its key. What is not there is no error.
	Delete bool
}

// Apply gives the text with edits done and everything else as it was.
func (f *File) Apply(edits []Edit) ([]byte, error) {
	if len(edits) == 0 {
		return []byte(f.text), nil
	}
	return nil, errors.ErrUnsupported
}
