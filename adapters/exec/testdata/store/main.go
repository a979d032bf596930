// Command store answers a request of the exec protocol from the file that its argument names.
package main

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"time"
)

type store struct {
	Values map[string]json.RawMessage
	Errors map[string]map[string]any
	Fault  map[string]any // of every id
	Hang   bool
	Gone   bool
}

func main() {
	if answer(os.Args[1], os.Stdin, os.Stdout) != nil {
		os.Exit(1)
	}
}

func answer(path string, stdin io.Reader, stdout io.Writer) error {
	var s store
	var request struct{ IDs []string }
	text, err := os.ReadFile(path)
	if err == nil {
		err = json.Unmarshal(text, &s)
	}
	if err == nil {
		err = json.NewDecoder(stdin).Decode(&request)
	}
	switch {
	case err != nil:
		return err
	case s.Hang:
		time.Sleep(time.Hour)
	case s.Gone:
		return errors.New("gone")
	}
	values, errs := map[string]json.RawMessage{}, map[string]any{}
	for _, id := range request.IDs {
		switch v, ok := s.Values[id]; {
		case s.Fault != nil:
			errs[id] = s.Fault
		case s.Errors[id] != nil:
			errs[id] = s.Errors[id]
		case ok:
			values[id] = v
		default:
			errs[id] = map[string]any{"code": "NOT_FOUND"}
		}
	}
	return json.NewEncoder(stdout).Encode(map[string]any{"protocolVersion": 1, "values": values, "errors": errs})
}
