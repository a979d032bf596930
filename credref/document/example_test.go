package document_test

import (
	"fmt"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/credref/document"
)

func ExampleDocument_Render() {
	src := `db:
  host: db.example
  password: {provider: app, id: kv/app/db, field: password} # rotated monthly
  replica: cred://app/kv/app/replica
`
	d, err := document.Parse("app.yaml", []byte(src), document.YAML, document.Options{Providers: []string{"app"}})
	if err != nil {
		fmt.Println(err)
		return
	}
	out, err := d.Render(func(s *document.Site) (document.Replacement, error) {
		return document.Replacement{Secret: backend.NewSecretString("value of " + s.Ref.String())}, nil
	})
	fmt.Print(string(out), err)
	// Output:
	// db:
	//   host: db.example
	//   password: "value of cred://app/kv/app/db#password" # rotated monthly
	//   replica: "value of cred://app/kv/app/replica"
	// <nil>
}
