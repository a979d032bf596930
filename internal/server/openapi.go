package server

import _ "embed"

// openAPI is the OpenAPI 3.1 document of the API. A test makes it from the routes and the Go types; linking what makes it would
// cost every start.
//
//go:generate go test -count=1 -run ^TestOpenAPIIsOfTheTypes$ -update .
//go:embed openapi.json
var openAPI []byte
