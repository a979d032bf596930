// Package execproto is the codec of the OpenClaw exec protocol, version 1, by which a program answers for secrets. It knows
// nothing of processes.
//
// The request is one JSON object on the program's standard input:
//
//	{"protocolVersion":1,"provider":"corp","ids":["a","b"]}
//
// The response is one JSON object on its standard output:
//
//	{"protocolVersion":1,"values":{"a":"…"},"errors":{"b":{"code":"NOT_FOUND"}}}
//
// White space and a byte order mark around the response are ignored, and so are keys and ids that nobody asked for. "values"
// is always there, an object. An id in "errors" has failed, whatever "values" says; null there is no error unless the Dialect says so. Of an error only
// "code", when it is one that the Dialect knows, and "retryAfterMs" are kept: other text of the program is not passed on.
package execproto
