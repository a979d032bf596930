// Command adapter answers as an executable adapter should, from the file of known ids that its last argument names; with
// -broken NAME it is broken in the way that the vector of that name shows.
package main

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

type known struct {
	ID    string          `json:"id"`
	Value json.RawMessage `json:"value"`
}

type failure struct {
	Code       string `json:"code"`
	Message    string `json:"message,omitempty"`
	RetryAfter any    `json:"retryAfterMs,omitempty"`
}

var codes = map[string]string{
	"denied": "DENIED", "invalid": "INVALID_ID", "locked": "LOCKED", "unavailable": "UNAVAILABLE", "throttled": "UNAVAILABLE",
	"logged-out": "AUTH_REQUIRED", "expired": "EXPIRED",
}

var hostile = map[string][]string{
	"hostile/empty": {""}, "hostile/blank": {" "}, "hostile/long": {strings.Repeat("a", 65536)}, "hostile/climbs": {"/etc/passwd"},
	"hostile/option": {"--help"}, "hostile/shell": {"*"}, "hostile/quotes": {`\`}, "hostile/template": {"{{.}}"},
	"hostile/control": {"\r"}, "hostile/builtin": {"__proto__"}, "hostile/unicode": {"\ufeff"},
}

func main() {
	broken := flag.String("broken", "", "the vector to fail")
	flag.Parse()
	os.Exit(run(*broken, flag.Arg(0)))
}

func run(broken, path string) int {
	is := func(name string) bool { return broken == name }
	if is("process/terminates") {
		signal.Ignore(syscall.SIGTERM)
	}
	text, err := os.ReadFile(path)
	var file struct{ Known map[string]known }
	if err != nil || json.Unmarshal(text, &file) != nil {
		return 1
	}
	input, err := io.ReadAll(os.Stdin)
	if err != nil {
		return 1
	}
	switch {
	case is("process/at-once"):
		lock := filepath.Join(filepath.Dir(path), "lock")
		f, err := os.OpenFile(lock, os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			return 1
		}
		time.Sleep(100 * time.Millisecond)
		_ = f.Close()
		_ = os.Remove(lock)
	case is("process/time"):
		time.Sleep(700 * time.Millisecond)
	case is("process/output"):
		_, _ = os.Stderr.Write(bytes.Repeat([]byte("noise "), 200_000))
	case is("process/children"):
		_ = exec.Command("/bin/sleep", "2").Start()
	case is("request/garbage") && bytes.HasPrefix(input, []byte("GET")), is("request/empty") && len(input) == 0:
		return 0
	case is("request/cut-short") && !bytes.HasSuffix(input, []byte("}")):
		input = append(input, '}')
	case is("request/escapes") && bytes.Contains(input, []byte(`\u`)), is("request/white-space") && !bytes.HasPrefix(input, []byte("{")):
		return 1
	}
	var request struct {
		ProtocolVersion int      `json:"protocolVersion"`
		Provider        string   `json:"provider"`
		IDs             []string `json:"ids"`
	}
	dec := json.NewDecoder(bytes.NewReader(input))
	if is("request/unknown-fields") {
		dec.DisallowUnknownFields()
	}
	if dec.Decode(&request) != nil || request.ProtocolVersion != 1 && !is("request/version-2") {
		return 1
	}
	if is("answer/none") && len(request.IDs) == 0 || is("request/thousand") && len(request.IDs) > 500 {
		return 1
	}
	values, errors := map[string]any{}, map[string]failure{}
	for i, id := range request.IDs {
		if is("answer/several") && i > 0 {
			break
		}
		role, value := find(file.Known, id)
		if is("hostile/near") && role == "" {
			role, value = find(file.Known, strings.TrimSpace(id))
		}
		if slices.Contains(hostile[broken], id) {
			role, value = "present", file.Known["present"].Value
		}
		switch {
		case is("value/empty") && role == "empty", role == "" || role == "missing":
			errors[id] = failure{Code: "NOT_FOUND"}
		case codes[role] != "":
			errors[id] = failure{Code: codes[role]}
			if is("code/" + strings.NewReplacer("logged-out", "auth-required", "invalid", "invalid-id").Replace(role)) {
				errors[id] = failure{Code: "BUSY"}
			} else if role == "throttled" && !is("code/retry-after") {
				errors[id] = failure{Code: "UNAVAILABLE", RetryAfter: 1500}
			}
		default:
			values[id] = broke(broken, role, value)
		}
	}
	switch {
	case is("answer/missing"):
		for id, e := range errors {
			if e.Code == "NOT_FOUND" {
				errors[id] = failure{Code: "NOT_THERE"}
			}
		}
	case is("answer/partial") && len(values) > 0 && len(errors) > 0:
		if _, missing := errors[file.Known["missing"].ID]; missing {
			return 1
		}
	case is("answer/only-asked"):
		for _, k := range file.Known {
			if k.Value != nil {
				if _, asked := values[k.ID]; !asked && !slices.Contains(request.IDs, k.ID) {
					values[k.ID] = k.Value
				}
			}
		}
	case is("answer/stdout"):
		fmt.Println(`{"level": "info", "msg": "ready"}`)
	case is("answer/stderr") && len(values) > 0:
		fmt.Fprintln(os.Stderr, "debug:", base64.StdEncoding.EncodeToString(file.Known["present"].Value))
	case is("answer/message"):
		for id, e := range errors {
			e.Message = "not " + hex.EncodeToString(file.Known["present"].Value)
			errors[id] = e
		}
	case is("code/others") && errors[file.Known["denied"].ID].Code != "":
		for id := range values {
			errors[id] = failure{Code: "DENIED"}
		}
	}
	out, err := json.Marshal(map[string]any{"protocolVersion": 1, "values": values, "errors": errors})
	if err != nil {
		return 1
	}
	_, _ = os.Stdout.Write(out)
	return 0
}

func find(all map[string]known, id string) (role string, value json.RawMessage) {
	for _, role := range slices.Sorted(maps.Keys(all)) {
		if all[role].ID == id {
			return role, all[role].Value
		}
	}
	return "", nil
}

// broke gives the value of role as a program gives it that is broken so.
func broke(broken, role string, value json.RawMessage) any {
	var text string
	_ = json.Unmarshal(value, &text)
	switch {
	case broken == "answer/value":
		return text + "."
	case broken == "value/object" && role == "object":
		return string(value)
	case broken == "value/white-space":
		return keep(value, strings.TrimSpace(text))
	case broken == "value/unicode":
		return keep(value, strings.Map(func(r rune) rune {
			if r > 126 {
				return '?'
			}
			return r
		}, text))
	case broken == "value/quotes":
		return keep(value, strings.ReplaceAll(text, `\`, `\\`))
	case broken == "value/large":
		return keep(value, text[:min(len(text), 1<<16-1)])
	}
	return value
}

// keep gives text, but another JSON value than a string as it is.
func keep(value json.RawMessage, text string) any {
	if value[0] != '"' {
		return value
	}
	return text
}
