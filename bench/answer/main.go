// Command answer speaks the exec protocol: it answers each id with the id.
package main

import (
	"encoding/json"
	"os"
)

func main() {
	var req struct {
		IDs []string `json:"ids"`
	}
	if json.NewDecoder(os.Stdin).Decode(&req) != nil {
		os.Exit(1)
	}
	values := make(map[string]string, len(req.IDs))
	for _, id := range req.IDs {
		values[id] = id
	}
	if json.NewEncoder(os.Stdout).Encode(map[string]any{"protocolVersion": 1, "values": values}) != nil {
		os.Exit(1)
	}
}
