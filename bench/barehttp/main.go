// Command barehttp is the floor of the sidecar's speed: Go's net/http on a Unix socket, and one static answer of 200 bytes.
package main

import (
	"bytes"
	"log"
	"net"
	"net/http"
	"os"
)

func main() {
	answer := bytes.Repeat([]byte("x"), 200)
	l, err := net.Listen("unix", os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	log.Fatal(http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(answer) })))
}
