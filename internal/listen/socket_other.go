//go:build !unix

package listen

import (
	"runtime"

	"github.com/credresolve/credresolve/backend"
)

func openUnix(string, Options) (*Socket, error) {
	return nil, &backend.Error{
		Code: backend.CodeUnsupported, Reason: "a Unix socket does not tell who connects on " + runtime.GOOS,
		Remedy: "set serve.tcp.listen and serve.tcp.token_file",
	}
}
