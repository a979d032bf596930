package document_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/credref"
	"github.com/credresolve/credresolve/credref/document"
)

// answer is how the tests resolve: by the id. json:X is the JSON value X, gone removes, any other id is its own text.
func answer(s *document.Site) (document.Replacement, error) {
	id := s.Ref.ID
	switch {
	case id == "gone" && !s.Default.IsZero():
		return document.Replacement{Secret: s.Default}, nil
	case id == "gone":
		return document.Replacement{Remove: true}, nil
	case strings.HasPrefix(id, "json:"):
		return document.Replacement{Secret: backend.NewJSONSecret([]byte(id[5:]))}, nil
	}
	return document.Replacement{Secret: backend.NewSecretString(id)}, nil
}

func render(t *testing.T, format document.Format, in string, o document.Options) string {
	t.Helper()
	d, err := document.Parse("in", []byte(in), format, o)
	if err != nil {
		t.Fatalf("Parse: %v\n%s", err, in)
	}
	if err := sameWithForeign([]byte(in), format, o); err != nil {
		t.Errorf("%s\n%s", err, in)
	}
	out, err := d.Render(answer)
	if err != nil {
		t.Fatalf("Render: %v\n%s", err, in)
	}
	return string(out)
}

type renderCase struct{ name, in, want string }

func runRender(t *testing.T, format document.Format, cases []renderCase) {
	t.Helper()
	for _, tt := range cases {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if got := render(t, format, tt.in, document.Options{}); got != tt.want {
				t.Errorf("%q\ngot\n%s\nwant\n%s", tt.in, got, tt.want)
			}
		})
	}
}

func TestYAMLReplaces(t *testing.T) {
	t.Parallel()
	runRender(t, document.YAML, []renderCase{
		{"a plain key that ends with a quote", "{0\":{provider: p, id: x}, \"b\":{provider: p, id: y}}\n", "{0\": \"x\", \"b\":\"y\"}\n"},
		{"short form", "a: cred://p/x # c\nb: 1\n", "a: \"x\" # c\nb: 1\n"},
		{"quoted short form", "a: 'cred://p/x'\nb: \"cred://p/y\"\n", "a: \"x\"\nb: \"y\"\n"},
		{"short form on its own line", "a: !!str &n\n  cred://p/x\nb: *n\n", "a: !!str &n\n  \"x\"\nb: *n\n"},
		{"escaped short form", `a: "\x63red:\/\/p/x"`, `a: "x"`},
		{"within a text it is none", "a: see cred://p/x\n", "a: see cred://p/x\n"},
		{"a key is none", "cred://p/x: 1\n? cred://p/y\n: 2\n", "cred://p/x: 1\n? cred://p/y\n: 2\n"},
		{"block map", "a:\n  b:\n    provider: p # c1\n    # c2\n    id: x # c3\n  c: 1\n", "a:\n  b: \"x\" # c3\n  c: 1\n"},
		{"block map after a comment", "b: # the password\n  provider: p\n  id: x\nc: 1\n", "b: # the password\n  \"x\"\nc: 1\n"},
		{"block map in a list", "- provider: p\n  id: x\n- 1\n", "- \"x\"\n- 1\n"},
		{"block map below a dash", "-\n  provider: p\n  id: x\n- 1\n", "- \"x\"\n- 1\n"},
		{"flow map", "a: {provider: p, id: x} # c\n", "a: \"x\" # c\n"},
		{"flow map on lines", "a: {\n  provider: p, # c\n  id: x\n  }\nb: 1\n", "a: \"x\"\nb: 1\n"},
		{"JSON in YAML", `{"a": {"provider":"p","id":"x"}, "b":"cred://p/y"}`, `{"a": "x", "b":"y"}`},
		{"no space after a colon", "{a:{provider: p, id: x}, \"b\":{provider: p, id: y}}\n", "{a: \"x\", \"b\":\"y\"}\n"},
		{"flow list", "a: [cred://p/x, {provider: p, id: y}, 1]\n", "a: [\"x\", \"y\", 1]\n"},
		{"list without indentation", "a:\n- cred://p/x\n- 1\nb: 2\n", "a:\n- \"x\"\n- 1\nb: 2\n"},
		{"compact lists", "- - cred://p/x\n  - 1\n- k: cred://p/y\n  l: 2\n", "- - \"x\"\n  - 1\n- k: \"y\"\n  l: 2\n"},
		{"whole document", "provider: p\nid: x\n", "\"x\"\n"},
		{"whole document, short", "# c\ncred://p/x\n", "# c\n\"x\"\n"},
		{"several documents", "%YAML 1.2\n---\na: cred://p/x\n...\n---\n- cred://p/y\n--- cred://p/z\n", "%YAML 1.2\n---\na: \"x\"\n...\n---\n- \"y\"\n--- \"z\"\n"},
		{"literal", "a: |-\n  cred://p/x\nb: 1\n", "a: \"x\"\nb: 1\n"},
		{"folded, at the end", "a: >-\n  cred://p/x\n\n", "a: \"x\"\n\n"},
		{"block scalar as id", "a:\n  provider: p\n  id: |-\n    x\nb: 1\n", "a: \"x\"\nb: 1\n"},
		{"anchor of a string", "a: &n cred://p/x\nb: *n\n", "a: &n \"x\"\nb: *n\n"},
		{"anchor of a map", "a: &n\n  provider: p\n  id: x\nb: *n\n", "a: &n \"x\"\nb: *n\n"},
		{"anchor of a flow map", "a: &n {provider: p, id: x}\nb: [*n, *n]\n", "a: &n \"x\"\nb: [*n, *n]\n"},
		{"alias within a ref", "v: &v p\na: {provider: *v, id: x}\n", "v: &v p\na: \"x\"\n"},
		{"alias and anchor within the same ref", "a: {provider: &v p, id: *v}\n", "a: \"p\"\n"},
		{"a merged map is no ref", "a:\n  <<: {provider: p, id: x}\n  b: 1\nc: {<<: [{provider: p, id: x}]}\n", "a:\n  <<: {provider: p, id: x}\n  b: 1\nc: {<<: [{provider: p, id: x}]}\n"},
		{"merge keys stay", "d: &d {x: 1}\na:\n  <<: *d\n  y: cred://p/x\n", "d: &d {x: 1}\na:\n  <<: *d\n  y: \"x\"\n"},
		{"tag !!str", "a: !!str cred://p/x\nb: !!str cred://p/json:5\n", "a: !!str \"x\"\nb: 5\n"},
		{"tag !!map", "a: !!map\n  provider: p\n  id: x\nb: !!map {provider: p, id: y}\nc: 1\n", "a: \"x\"\nb: \"y\"\nc: 1\n"},
		{"anchor and tag", "a: &n !!map\n  provider: p\n  id: x\nb: &m !!str cred://p/json:5\n", "a: &n \"x\"\nb: &m 5\n"},
		{"a tag of one's own", "a: !vault cred://p/x\nb: !ref {provider: p, id: x}\n", "a: !vault cred://p/x\nb: !ref {provider: p, id: x}\n"},
		{"CRLF", "a:\r\n  provider: p\r\n  id: x\r\nb: cred://p/y\r\n", "a: \"x\"\r\nb: \"y\"\r\n"},
		{"BOM", "\ufeffa: cred://p/x\n", "\ufeffa: \"x\"\n"},
		{"tabs before comments", "a:\tcred://p/x\t# c\n", "a:\t\"x\"\t# c\n"},
		{"quoted keys", "\"a b\": {\"provider\": 'p', 'id': \"x\"}\n", "\"a b\": \"x\"\n"},
		{"explicit keys", "? a\n: ? provider\n  : p\n  ? id\n  : x\n", "? a\n: \"x\"\n"},
		{"single pair", "[a: cred://p/x, ? b : cred://p/y]\n", "[a: \"x\", ? b : \"y\"]\n"},
		{"collections as keys", "? [cred://p/x]\n: cred://p/y\n[cred://p/x]: 1\n{cred://p/x: y}: cred://p/z\n", "? [cred://p/x]\n: \"y\"\n[cred://p/x]: 1\n{cred://p/x: y}: \"z\"\n"},
		{"a list that turns out a key", "[[cred://p/x]: cred://p/y]\n", "[[cred://p/x]: \"y\"]\n"},
		{"JSON values", "a: cred://p/json:true\nb: {provider: p, id: 'json:[1,{\"k\":null}]'}\nc: cred://p/json:1e3\n", "a: true\nb: [1, {\"k\": null}]\nc: 1.0e+3\n"},
		{"text that looks like something else", "a: cred://p/no\nb: cred://p/1e3\nc: cred://p/null\nd: cred://p/~\n", "a: \"no\"\nb: \"1e3\"\nc: \"null\"\nd: \"~\"\n"},
		{"other people's maps", "a: {provider: p, id: x, region: eu}\nb: {provider: p}\nc: {id: x}\nd: {provider: 5, id: x}\n", "a: {provider: p, id: x, region: eu}\nb: {provider: p}\nc: {id: x}\nd: {provider: 5, id: x}\n"},
		{"no line break at the end", "a:\n  provider: p\n  id: x", "a: \"x\""},
		{"lone carriage returns", "a: cred://p/x\rb: {provider: p, id: gone, optional: true}\rc: 1\r", "a: \"x\"\rc: 1\r"},
	})
}

func TestYAMLRemoves(t *testing.T) {
	t.Parallel()
	const gone = "{provider: p, id: gone, optional: true}"
	runRender(t, document.YAML, []renderCase{
		{"key", "a: 1\nb: " + gone + " # c\nc: 2\n", "a: 1\nc: 2\n"},
		{"key with a block ref", "a: 1\nb:\n  provider: p\n  id: gone\n  optional: true\nc: 2\n", "a: 1\nc: 2\n"},
		{"last line", "a: 1\nb: " + gone, "a: 1\n"},
		{"only key", "a:\n  b: " + gone + "\nc: 1\n", "a: {}\nc: 1\n"},
		{"all keys", "a:\n  b: " + gone + "\n  # about c\n  c: " + gone + "\nd: 1\n", "a: {}\n  # about c\nd: 1\n"},
		{"only key after a comment", "a: # c\n  b: " + gone + "\nc: 1\n", "a: # c\n  {}\nc: 1\n"},
		{"only item", "a:\n  - " + gone + "\nc: 1\n", "a: []\nc: 1\n"},
		{"only item, not indented", "a:\n- " + gone + "\nc: 1\n", "a: []\nc: 1\n"},
		{"only item, not indented, after a comment", "a: # c\n- " + gone + "\nc: 1\n", "a: # c\n []\nc: 1\n"},
		{"only key of the document", "a: " + gone + "\n", "{}\n"},
		{"whole document", gone + "\n", "null\n"},
		{"first key of an item", "- a: " + gone + "\n  b: 1\n- 2\n", "- b: 1\n- 2\n"},
		{"first two keys of an item", "- a: " + gone + "\n  b: " + gone + "\n  c: 1\n- 2\n", "- c: 1\n- 2\n"},
		{"first key of an item, with a comment after it", "- a: " + gone + "\n  # about b\n  b: 1\n", "-\n  # about b\n  b: 1\n"},
		{"only key of an item", "- a: " + gone + "\n- 2\n", "- {}\n- 2\n"},
		{"first and third key of an item", "- a: " + gone + "\n  b: 1\n  c: " + gone + "\n", "- b: 1\n"},
		{"item of a nested list", "- - " + gone + "\n  - 1\n", "- - 1\n"},
		{"anchored", "a: &n\n  b: " + gone + "\nc: *n\n", "a: &n {}\nc: *n\n"},
		{"flow list", "[1, " + gone + ", 2]\n", "[1, 2]\n"},
		{"end of a flow list", "[1, " + gone + "]\n", "[1]\n"},
		{"end of a flow list, two", "[1, " + gone + ", " + gone + "]\n", "[1]\n"},
		{"end of a flow list, comma after", "[1, " + gone + ",]\n", "[1, ]\n"},
		{"begin of a flow list", "[" + gone + ", 1]\n", "[1]\n"},
		{"flow list, all", "[ " + gone + ", " + gone + " ]\n", "[]\n"},
		{"flow map", "{a: 1, b: " + gone + ", c: 2}\n", "{a: 1, c: 2}\n"},
		{"flow list on lines", "[\n  1,\n  " + gone + ", # c\n  2\n]\n", "[\n  1,\n  2\n]\n"},
		{"end of a flow list on lines", "[\n  1, # one\n  " + gone + "\n]\n", "[\n  1 # one\n]\n"},
		{"single pair", "[a: " + gone + ", 1]\n", "[{}, 1]\n"},
		{"several documents", "a: " + gone + "\n---\na: " + gone + "\nb: 1\n", "{}\n---\nb: 1\n"},
		{"default before removal", "a: {provider: p, id: gone, default: d, optional: true}\nb: {provider: p, id: gone, default: 5}\n", "a: \"d\"\nb: 5\n"},
		{"null as default", "a: {provider: p, id: gone, default: null}\n", "a: null\n"},
	})
}

func TestJSON(t *testing.T) {
	t.Parallel()
	const gone = `{"provider":"p","id":"gone","optional":true}`
	runRender(t, document.JSON, []renderCase{
		{"map", "{\n  \"a\": {\"provider\": \"p\", \"id\": \"x\"}, // c\n  \"b\": [\"cred://p/y\"]\n}\n", "{\n  \"a\": \"x\", // c\n  \"b\": [\"y\"]\n}\n"},
		{"escapes", `{"a":"\u0063red:\/\/p\/x"}`, `{"a":"x"}`},
		{"root", ` "cred://p/x" `, ` "x" `},
		{"JSON values", `["cred://p/json:{%22a%22:%201e400}","cred://p/json:null"]`, `[{"a":1e400},null]`},
		{"middle", "{\n  \"a\": 1,\n  \"b\": " + gone + ",\n  \"c\": 2\n}", "{\n  \"a\": 1,\n  \"c\": 2\n}"},
		{"end", "{\n  \"a\": 1,\n  \"b\": " + gone + "\n}", "{\n  \"a\": 1\n}"},
		{"end, two", "{\n  \"a\": 1,\n  \"b\": " + gone + ",\n  \"c\": " + gone + "\n}", "{\n  \"a\": 1\n}"},
		{"first and last", "{\n  \"a\": " + gone + ",\n  \"b\": 1,\n  \"c\": " + gone + "\n}", "{\n  \"b\": 1\n}"},
		{"all", "{\n  \"a\": " + gone + "\n}", "{}"},
		{"all, with a comment", "{ // c\n  \"a\": " + gone + "\n}", "{ // c\n}"},
		{"comma on the next line", "[1\n  , " + gone + "\n  , 2]", "[1\n  , \n   2]"},
		{"block comment", "[1, " + gone + " /* c */, 2]", "[1, /* c */ 2]"},
		{"trailing comma", "[1, " + gone + ",]", "[1, ]"},
		{"one line", `{"a":` + gone + `,"b":1}`, `{"b":1}`},
		{"whole document", gone, "null"},
		{"fallbacks", `{"provider":"p","id":"x","fallback":["cred://q/y",{"provider":"r","id":"z","version":"3"}]}`, `"x"`},
	})
}

func TestJSON5(t *testing.T) {
	t.Parallel()
	const gone = `{provider:'p',id:'gone',optional:true,}`
	runRender(t, document.JSON5, []renderCase{
		{"all of it", "// c\n{\n  un$quoted: 'cred://p/x', \"q\": {provider: 'p', id: \"y\",}, /* c */\n  h: 0xFF, n: [+1, .5, 5., -Infinity, NaN,], s: 'a\\\nb\\x41\\0',\n}\n",
			"// c\n{\n  un$quoted: \"x\", \"q\": \"y\", /* c */\n  h: 0xFF, n: [+1, .5, 5., -Infinity, NaN,], s: 'a\\\nb\\x41\\0',\n}\n"},
		{"escapes", `{\u0070rovider: 'p', id: '\x78\'\a\
'}`, `"x'a"`},
		{"removal", "{\n  a: " + gone + ", // c\n  b: 1,\n}", "{\n  b: 1,\n}"},
		{"odd white space", "\ufeff{\v\f\u00a0\u2028a:'cred://p/x'}", "\ufeff{\v\f\u00a0\u2028a:\"x\"}"},
	})
}

func TestTOML(t *testing.T) {
	t.Parallel()
	const gone = `{provider="p", id="gone", optional=true}`
	runRender(t, document.TOML, []renderCase{
		{"inline table", "# c\n[db]\npassword = { provider = \"p\", id = 'x' } # c\nport = 5432\n", "# c\n[db]\npassword = \"x\" # c\nport = 5432\n"},
		{"string", "a = \"cred://p/x\"\nb = '''cred://p/y'''\nc = \"\"\"\ncred://p/z\"\"\"\nd.e.\"f g\" = 'cred://p/w'\n", "a = \"x\"\nb = \"y\"\nc = \"z\"\nd.e.\"f g\" = \"w\"\n"},
		{"array", "a = [ 'cred://p/x', # c\n  {provider='p',id='y'},\n]\n", "a = [ \"x\", # c\n  \"y\",\n]\n"},
		{"nested inline", "a = {b.c = 'cred://p/x', d = [{e = 'cred://p/y'}]}\n", "a = {b.c = \"x\", d = [{e = \"y\"}]}\n"},
		{"array of tables", "[[s]]\na='cred://p/x'\n[[s]]\na='cred://p/y'\n[s.t]\nb='cred://p/z'\n", "[[s]]\na=\"x\"\n[[s]]\na=\"y\"\n[s.t]\nb=\"z\"\n"},
		{"JSON values", "a = 'cred://p/json:[1,{\"k\":true}]'\n", "a = [1, {\"k\" = true}]\n"},
		{"version as a number", "a = {provider='p', id='x', version=3}\n", "a = \"x\"\n"},
		{"removal", "a = 1\nb = " + gone + " # c\nc = 2\n", "a = 1\nc = 2\n"},
		{"removal of all", "[t]\nb = " + gone + "\n[u]\n", "[t]\n[u]\n"},
		{"removal of an item", "a = [1, " + gone + "]\nb = [" + gone + ",]\n", "a = [1]\nb = []\n"},
		{"removal within an inline table", "a = {b = 1, c = " + gone + "}\n", "a = {b = 1}\n"},
		{"table after its parent", "[db]\nuser = 'u'\n\n# the password\n[db.password] # c\nprovider = 'p'\nid = 'x' # d\n\n[db.pool]\nmax = 1\n", "[db]\nuser = 'u'\n\n# the password\npassword = \"x\" # c\n\n[db.pool]\nmax = 1\n"},
		{"tables after their parent", "[[db]]\n[db.a]\nprovider='p'\nid='x'\n[db.b]\nid='y'\nprovider='p'\n", "[[db]]\na = \"x\"\nb = \"y\"\n"},
		{"tables after the header of their parent, elsewhere", "[db]\n[x]\na = 1\n[db.a]\nprovider='p'\nid='x'\n[db.\"b c\"]\nid='y'\nprovider='p'\n[y]", "[db]\na = \"x\"\n\"b c\" = \"y\"\n[x]\na = 1\n[y]"},
		{"table before its parent", "[db.a]\nprovider='p'\nid='x'\n[db]\nb = 1", "[db]\nb = 1\na = \"x\""},
		{"tables without a parent", "[db.a]\nprovider='p'\nid='x'\n[x]\n[ db . 'b' ]\nid='y'\nprovider='p'\n", "[db]\na = \"x\"\n'b' = \"y\"\n[x]\n"},
		{"table whose parent has other tables", "[db.pool]\nmax = 1\n[db.a]\nprovider='p'\nid='x'\n", "[db.pool]\nmax = 1\n[db]\na = \"x\"\n"},
		{"table of the root, first", "\ufeff  [a]\r\nprovider='p'\r\nid='x'", "\ufeff  a = \"x\"\r\n"},
		{"tables of the root", "# file\n\n# x\n[x]\nb = 1\n[a]\nprovider='p'\nid='x'\n[b]\nprovider='p'\nid='y'\n", "# file\n\na = \"x\"\nb = \"y\"\n# x\n[x]\nb = 1\n"},
		{"tables of a root with lines", "z = [\n1,\n] # c\r\n\n[x]\nb = 1\n[a]\nprovider='p'\nid='x'\n[b]\nprovider='p'\nid='y'\n", "z = [\n1,\n] # c\r\na = \"x\"\nb = \"y\"\n\n[x]\nb = 1\n"},
		{"table below dotted keys", "[a]\nb.c.d = 1\n[x]\n[a.b.c.pw]\nprovider='p'\nid='x'\n[a.b.e]\nprovider='p'\nid='y'\n", "[a]\nb.c.d = 1\nb.c.pw = \"x\"\nb.e = \"y\"\n[x]\n"},
		{"table of an item", "[[s]]\nn=1\n[s.db.pw]\nprovider='p'\nid='x'\n[[s]]\nn=2\n[s.db]\n[s.db.pw]\nprovider='p'\nid='y'\n", "[[s]]\nn=1\n[s.db]\npw = \"x\"\n[[s]]\nn=2\n[s.db]\npw = \"y\"\n"},
		{"dotted keys", "a = 1\ndb.pw.provider = 'p' # c\nb = 2\ndb . pw . id = 'x' # d\ndb.user = 'u'\n[t]\npw.id = 'y'\npw.provider = 'p'", "a = 1\ndb.pw = \"x\" # c\nb = 2\ndb.user = 'u'\n[t]\npw = \"y\"\n"},
		{"table with all there is", "[a]\nprovider='p'\nid='x'\nversion=3\nfield='f'\noptional=true\ndefault=1\nfallback = [\n 'cred://p/y', # c\n]\n[b]\n", "a = \"x\"\n[b]\n"},
		{"table with tables as fallback", "[a]\nprovider='p'\nid='x'\n[[a.fallback]]\nprovider='p'\nid='y'\n[[a.fallback]]\nprovider='p'\nid='z'\n[b]\n", "a = \"x\"\n[b]\n"},
		{"dotted fallback", "a.provider='p'\na.id='x'\na.fallback.provider='p'\na.fallback.id='y'\n", "a = \"x\"\n"},
		{"array of tables that are refs", "[[a]] # c\nprovider='p'\nid='x'\n[x]\n[[a]]\nprovider='p'\nid='gone'\noptional=true\n[[a]]\nprovider='p'\nid='json:{\"k\":1}'\n", "a = [\"x\", {\"k\" = 1}] # c\n[x]\n"},
		{"arrays of tables elsewhere", "[x]\n[y]\n[[x.a]]\nprovider='p'\nid='1'\n[[x.b]]\nprovider='p'\nid='2'\n[[x.a]]\nprovider='p'\nid='3'\n[[x.b]]\nprovider='p'\nid='4'\n", "[x]\na = [\"1\", \"3\"]\nb = [\"2\", \"4\"]\n[y]\n"},
		{"removal of tables", "[db]\nb = " + gone + "\n[db.a] # c\nprovider='p'\nid='gone'\noptional=true\n[x]\n[db.c]\nprovider='p'\nid='gone'\noptional=true\n[z.c]\nprovider='p'\nid='gone'\noptional=true\n", "[db]\n[x]\n[z]\n"},
		{"removal of dotted keys and a whole array", "a.provider='p'\na.id='gone'\na.optional=true\n[[b]]\nprovider='p'\nid='gone'\noptional=true\n[[b]]\nprovider='p'\nid='gone'\noptional=true\n", "b = []\n"},
		{"new line after one that goes", "[db]\nb = " + gone + "\n[x]\n[db.a]\nprovider='p'\nid='x'\n[db.c]\nprovider='p'\nid='y'\n", "[db]\na = \"x\"\nc = \"y\"\n[x]\n"},
		{"JSON value of a table", "[a]\nprovider='p'\nid='json:{\"k\":[1]}'\n", "a = {\"k\" = [1]}\n"},
		{"table whose id is a short form", "[a]\nprovider='p'\nid='cred://p/x'\n", "a = \"cred://p/x\"\n"},
		{"other people's tables", "[a]\nprovider='p'\nid='x'\nregion='eu'\n[b]\nprovider='p'\nid='x'\n[b.tags]\nk=1\n", "[a]\nprovider='p'\nid='x'\nregion='eu'\n[b]\nprovider='p'\nid='x'\n[b.tags]\nk=1\n"},
		{"dates", "a = 1979-05-27 07:32:00\nb = 'cred://p/x'\n", "a = 1979-05-27 07:32:00\nb = \"x\"\n"},
		{"BOM and CRLF", "\ufeffa = 'cred://p/x'\r\nb = " + gone + "\r\nc = 1\r\n", "\ufeffa = \"x\"\r\nc = 1\r\n"},
	})
}

func TestEnvFile(t *testing.T) {
	t.Parallel()
	runRender(t, document.Env, []renderCase{
		{"forms", "# c\nexport A=cred://p/x # c\nB = \"cred://p/y\"\nC='cred://p/z z'\nD=text cred://p/x\nE\nF=\n", "# c\nexport A=x # c\nB = y\nC='z z'\nD=text cred://p/x\nE\nF=\n"},
		{"comment needs white space", "A=cred://p/x#f\n", "A=x\n"},
		{"quotes", "A=\"cred://p/it's $5\"\nB=\"cred://p/a b\"\n", "A=\"it's \\$5\"\nB='a b'\n"},
		{"joined quotes", "A='cred://p/it'\\''s'\n", "A=\"it's\"\n"},
		{"JSON", "A='cred://p/json:[1]'\n", "A='[1]'\n"},
		{"lines", "A='x\ncred://p/y'\nB=cred://p/y\r\n", "A='x\ncred://p/y'\nB=y\r\n"},
		{"BOM", "\ufeffA=cred://p/y", "\ufeffA=y"},
	})
}

func TestSites(t *testing.T) {
	t.Parallel()
	const in = `services:
  - name: a
    db: {provider: app, id: kv/app/db, field: password, version: 3, optional: true,
         default: d, fallback: [cred://desk/db, {provider: env, id: DB}]}
  - "k.x": cred://app/kv/app/y?version=2#/a/b
    ü: {fallback: cred://q/z, provider: app, id: x}
`
	d, err := document.Parse("app.yaml", []byte(in), document.YAML, document.Options{})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, s := range d.Refs() {
		got = append(got, fmt.Sprintf("%s:%d:%d %s %v %v %v %s", s.File, s.Line, s.Column, s.Path, s.Ref, s.Fallback, s.Optional, s.Default.Reveal()))
	}
	want := []string{
		"app.yaml:3:9 services[0].db cred://app/kv/app/db?version=3#password [cred://desk/db cred://env/DB] true d",
		`app.yaml:5:12 services[1]["k.x"] cred://app/kv/app/y?version=2#/a/b [] false `,
		`app.yaml:6:8 services[1]["ü"] cred://app/x [cred://q/z] false `,
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestOptions(t *testing.T) {
	t.Parallel()
	const in = "metadata:\n  provider: p\n  id: x\nlist:\n  - a: cred://p/y\n    b: {provider: q, id: z}\n"
	for _, tt := range []struct {
		name string
		o    document.Options
		want string
	}{
		{"any", document.Options{}, "[metadata list[0].a list[0].b]"},
		{"short", document.Options{Refs: document.RefsShort}, "[list[0].a]"},
		{"short with providers", document.Options{Refs: document.RefsShort, Providers: []string{"p"}}, "[list[0].a]"},
		{"ignore a map", document.Options{Ignore: []string{"/metadata"}}, "[list[0].a list[0].b]"},
		{"ignore with **", document.Options{Ignore: []string{"/metadata/**", "/list/*/a"}}, "[list[0].b]"},
		{"ignore at any depth", document.Options{Ignore: []string{"/**/b"}}, "[metadata list[0].a]"},
		{"ignore a class", document.Options{Ignore: []string{"/l*/[0-9]/?"}}, "[metadata]"},
		{"ignore everything", document.Options{Ignore: []string{"/**"}}, "[]"},
		{"ignored providers may be unknown", document.Options{Ignore: []string{"/list/0/b"}, Providers: []string{"p"}}, "[metadata list[0].a]"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			d, err := document.Parse("x", []byte(in), document.YAML, tt.o)
			if err != nil {
				t.Fatal(err)
			}
			paths := []string{}
			for _, s := range d.Refs() {
				paths = append(paths, s.Path)
			}
			if got := fmt.Sprint(paths); got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
		})
	}
	for _, o := range []document.Options{{Refs: "long"}, {Ignore: []string{"metadata"}}, {Ignore: []string{"/[a"}}} {
		if _, err := document.Parse("x", nil, document.YAML, o); backend.CodeOf(err) != backend.CodeUsage {
			t.Errorf("%+v: got %v, want a usage error", o, err)
		}
	}
}

func TestParseErrors(t *testing.T) {
	t.Parallel()
	const canary = "c4narys"
	providers := []string{"app", "desk"}
	for _, tt := range []struct {
		name   string
		format document.Format
		in     string
		want   []string // one for each error, in order
	}{
		{"unknown provider", document.YAML, "a: 1\nb: {provider: appp, id: c4narys}\n", []string{`f:2:4: b: unknown provider; did you mean "app"?`}},
		{"unknown provider, short", document.YAML, "b: cred://zzzzzzz/c4narys\n", []string{`f:1:4: b: unknown provider; known providers: app, desk`}},
		{"provider that cannot be one", document.YAML, "b: {provider: 'Hunter2 c4narys', id: x}\n", []string{"f:1:4: b: unknown provider"}},
		{"all at once", document.YAML, "a: cred://app/%zc4narys\nb: {provider: app, id: 5}\nc: {provider: app, id: x, version: 1.5, field: 3, optional: c4narys, default: [x], fallback: y}\n", []string{
			"f:1:4: a: malformed credential reference: the id has a % that",
			"f:2:24: b.id: the id must be a string",
			"f:3:36: c.version: the version must be",
			"f:3:48: c.field: the field must be",
			"f:3:61: c.optional: optional must be true or false",
			"f:3:79: c.default: the default must be",
		}},
		{"fallback of a wrong kind", document.YAML, "c: {provider: app, id: x, fallback: [cred://app/y, c4narys]}\n", []string{"f:1:37: c.fallback: fallback must be"}},
		{"empty fallback", document.YAML, "c: {provider: app, id: x, fallback: []}\n", []string{"f:1:37: c.fallback: fallback must be"}},
		{"fallback with a fallback", document.YAML, "c: {provider: app, id: x, fallback: {provider: app, id: y, optional: true}}\n", []string{"f:1:37: c.fallback: a fallback has no optional"}},
		{"default that is a ref", document.YAML, "c: {provider: app, id: x, default: cred://app/y}\n", []string{"f:1:36: c.default: the default must be"}},
		{"empty version", document.JSON, `{"provider": "app", "id": "x", "version": ""}`, []string{"f:1:43: version: the version must be"}},
		{"duplicate key", document.YAML, "a: 1\n\"a\": c4narys\n", []string{"f:2:1: a: the key is there twice"}},
		{"duplicate key in JSON", document.JSON, "{\"a\": 1,\n \"\\u0061\": 2}", []string{"f:2:2: a: the key is there twice"}},
		{"duplicate key in TOML", document.TOML, "[t]\na = 1\na = 2\n", []string{"f:3:1: t.a: the key is there twice"}},
		{"duplicate key in an inline table", document.TOML, "t = {a = 1, a = 2}\n", []string{"f:1:13: t.a: the key is there twice"}},
		{"duplicate table", document.TOML, "[t]\n[t]\n", []string{"f:2:2: t: the table is there twice"}},
		{"duplicate variable", document.Env, "A=1\nA=c4narys\n", []string{"f:2:1: A: the variable is set twice"}},
		{"TOML document", document.TOML, "provider = 'app'\nid = 'c4narys'\n", []string{"f:1:1: .: a TOML document is a table and cannot be a ref"}},
		{"TOML array of tables", document.TOML, "[[t]]\nprovider = 'app'\nid = 'c4narys'\n[[t]]\nx=1\n", []string{"f:1:3: t[0]: a ref in an array of tables of which not all are refs"}},
		{"TOML tables", document.TOML, "[a]\nprovider = 'ap'\nid = 'c4narys'\n[b]\nprovider = 'app'\nid = 1\n[c]\nprovider = 'app'\nid = 'c4narys'\noptional = 'c4narys'\nfallback = [1]\n[[d]]\n[[d]]\nprovider = 'ap'\nid = 'c4narys'\n", []string{
			"f:1:2: a: unknown provider", "f:6:1: b.id: the id must be a string", "f:10:12: c.optional: optional must be true or false", "f:13:3: d[1]: unknown provider",
		}},
		{"TOML table with its default a table", document.TOML, "[c]\nprovider = 'app'\nid = 'c4narys'\ndefault.x = 1\n", []string{"f:4:1: c.default: the default must be a string"}},
		{"TOML syntax", document.TOML, "a = 1\nb = c4narys\n", []string{"f:2:5: not valid TOML"}},
		{"JSON syntax", document.JSON, "{\"a\": c4narys}", []string{"f:1:7: a value is expected"}},
		{"JSON with single quotes", document.JSON, "{'a': 1}", []string{"f:1:2: a key in double quotes"}},
		{"JSON cut off", document.JSON, "{\"a\": [1, \"c4narys\"", []string{"f:1:7: a { or [ without its end"}},
		{"YAML tab", document.YAML, "a:\n\tb: c4narys\n", []string{"f:2:2: a tab in the indentation"}},
		{"YAML indentation", document.YAML, "a:\n    b: 1\n  c4narys: 2\n", []string{"f:3:3: the indentation fits no line before"}},
		{"YAML unknown alias", document.YAML, "a: *c4narys\n", []string{"f:1:4: an alias without its anchor"}},
		{"YAML alias into a ref", document.YAML, "a: {provider: app, id: &i c4narys}\nb: *i\n", []string{"f:2:4: b: the alias names a part of a ref"}},
		{"YAML merge of a ref", document.YAML, "a: &a {provider: app, id: x}\nb: {<<: *a, field: y}\nc:\n  <<: [*a]\n", []string{"f:2:9: b[\"<<\"]: << merges a ref", "f:4:8: c[\"<<\"][0]: << merges a ref"}},
		{"env without =", document.Env, "A=1\nc4narys x\n", []string{"f:2:9: = is expected"}},
		{"env with text after quotes", document.Env, "A='x' c4narys\n", []string{"f:1:7: something follows"}},
		{"env with an open quote", document.Env, "A='c4narys\n", []string{"f:1:3: a quote without its end"}},
		{"not UTF-8", document.YAML, "a: 1\nb: c4narys\xff\n", []string{"f:2:11: the document is not UTF-8"}},
		{"unknown format", "xml", "<a/>", []string{`f: unknown format "xml"`}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, err := document.Parse("f", []byte(tt.in), tt.format, document.Options{Providers: providers})
			if err == nil {
				t.Fatal("no error")
			}
			if err := sameWithForeign([]byte(tt.in), tt.format, document.Options{Providers: providers}); err != nil {
				t.Error(err)
			}
			if code := backend.CodeOf(err); code != backend.CodeUsage {
				t.Errorf("code %s, want usage", code)
			}
			lines := strings.Split(err.Error(), "\n")
			for i, want := range tt.want {
				if i >= len(lines) || !strings.HasPrefix(lines[i], want) {
					t.Errorf("error %d: got %q, want the beginning %q", i, lines[min(i, len(lines)-1)], want)
				}
			}
			if len(lines) != len(tt.want) {
				t.Errorf("%d errors, want %d:\n%v", len(lines), len(tt.want), err)
			}
			isKey := tt.name == "YAML indentation"
			if !isKey && strings.Contains(strings.ToLower(err.Error()), canary) {
				t.Errorf("the error shows a value: %v", err)
			}
		})
	}
}

func TestErrorsAreCapped(t *testing.T) {
	t.Parallel()
	_, err := document.Parse("f", []byte(strings.Repeat("- cred://%\n", 1000)), document.YAML, document.Options{})
	if err == nil || strings.Count(err.Error(), "\n") != 20 || !strings.Contains(err.Error(), "and 980 more errors") {
		t.Errorf("got %v", err)
	}
}

func TestRenderErrors(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		format document.Format
		in     string
		give   document.Replacement
		err    error
		code   backend.Code
	}{
		{"binary", document.YAML, "a: cred://p/x\n", document.Replacement{Secret: backend.NewSecret([]byte("c4narys\xff"))}, nil, backend.CodeUnsupported},
		{"NUL in env", document.Env, "a=cred://p/x\n", document.Replacement{Secret: backend.NewSecretString("c4narys\x00")}, nil, backend.CodeUnsupported},
		{"CR in env", document.Env, "a=cred://p/x\n", document.Replacement{Secret: backend.NewSecretString("c4narys\r\n")}, nil, backend.CodeUnsupported},
		{"backslash in env", document.Env, "a=cred://p/x\n", document.Replacement{Secret: backend.NewSecretString(`c4narys\`)}, nil, backend.CodeUnsupported},
		{"null in TOML", document.TOML, "a='cred://p/x'\n", document.Replacement{Secret: backend.NewJSONSecret([]byte("[null]"))}, nil, backend.CodeUnsupported},
		{"big number in TOML", document.TOML, "a='cred://p/x'\n", document.Replacement{Secret: backend.NewJSONSecret([]byte("9223372036854775808"))}, nil, backend.CodeUnsupported},
		{"duplicate member", document.YAML, "a: cred://p/x\n", document.Replacement{Secret: backend.NewJSONSecret([]byte(`{"c4narys":1,"c4narys":2}`))}, nil, backend.CodeUnsupported},
		{"no value", document.YAML, "a: cred://p/x\n", document.Replacement{}, nil, backend.CodeInternal},
		{"not JSON", document.JSON, `["cred://p/x"]`, document.Replacement{Secret: backend.NewJSONSecret([]byte("c4narys"))}, nil, backend.CodeInternal},
		{"removal of what is not optional", document.YAML, "a: cred://p/x\n", document.Replacement{Remove: true}, nil, backend.CodeUsage},
		{"removal of what an alias names", document.YAML, "a: &n {provider: p, id: x, optional: true}\nb: *n\n", document.Replacement{Remove: true}, nil, backend.CodeUnsupported},
		{"error of the caller", document.YAML, "a: cred://p/x\n", document.Replacement{}, backend.ErrNotFound, backend.CodeNotFound},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			d, err := document.Parse("f", []byte(tt.in), tt.format, document.Options{})
			if err != nil {
				t.Fatal(err)
			}
			out, err := d.Render(func(*document.Site) (document.Replacement, error) { return tt.give, tt.err })
			if out != nil || backend.CodeOf(err) != tt.code {
				t.Errorf("got %v, want code %s", err, tt.code)
			}
			if err != nil && (!strings.HasPrefix(err.Error(), "f:1:") || strings.Contains(err.Error(), "c4narys")) {
				t.Errorf("the error does not name the place, or shows the value: %v", err)
			}
			if tt.err != nil && !errors.Is(err, tt.err) {
				t.Errorf("%v does not wrap %v", err, tt.err)
			}
		})
	}
}

func TestLimits(t *testing.T) {
	t.Parallel()
	deep := func(open, end string, n int) string { return strings.Repeat(open, n) + "1" + strings.Repeat(end, n) }
	block := &strings.Builder{}
	for i := range 2000 {
		fmt.Fprintf(block, "%sa:\n", strings.Repeat(" ", i))
	}
	for _, tt := range []struct {
		name   string
		format document.Format
		in     string
		o      document.Options
		want   string
	}{
		{"50 MB", document.YAML, strings.Repeat("a: 12345\n", 50_000_000/9), document.Options{}, "more than the limit"},
		{"10,000 levels of YAML flow", document.YAML, deep("[", "]", 10_000), document.Options{}, "1000 levels"},
		{"10,000 levels of YAML flow maps", document.YAML, deep("{a: ", "}", 10_000), document.Options{}, "1000 levels"},
		{"10,000 levels of flow keys", document.YAML, deep("{? [", "]}", 10_000), document.Options{}, "1000 levels"},
		{"10,000 levels of YAML lists", document.YAML, deep("- ", "", 10_000), document.Options{}, "1000 levels"},
		{"10,000 levels of YAML keys", document.YAML, deep("? ", "", 10_000), document.Options{}, "1000 levels"},
		{"2,000 levels of YAML maps", document.YAML, block.String(), document.Options{}, "1000 levels"},
		{"a million brackets", document.YAML, strings.Repeat("[", 1e6), document.Options{}, "1000 levels"},
		{"10,000 levels of JSON", document.JSON, deep("[", "]", 10_000), document.Options{}, "1000 levels"},
		{"10,000 levels of JSON5", document.JSON5, deep("{a:", "}", 10_000), document.Options{}, "1000 levels"},
		{"9,000 levels of TOML", document.TOML, "a = " + deep("[", "]", 9_000), document.Options{}, "1000 levels"},
		{"a million levels of TOML", document.TOML, "a = " + deep("[", "]", 1e6), document.Options{}, "more than 1000000 keys and values"},
		{"400,000 levels of TOML", document.TOML, "a = " + deep("[", "]", 400_000), document.Options{}, "not valid TOML"},
		{"10,000 dotted keys", document.TOML, strings.Repeat("a.", 10_000) + "a = 1", document.Options{}, "1000 levels"},
		{"refs", document.YAML, strings.Repeat("- cred://p/x\n", 11), document.Options{MaxRefs: 10}, "more than 10 refs"},
		{"16 MiB of empty keys", document.YAML, strings.Repeat("?\n", 8<<20), document.Options{}, "and 499980 more errors"},
		{"16 MiB of TOML numbers", document.TOML, "a = [" + strings.Repeat("1,", 8<<20-4) + "]", document.Options{}, "more than 1000000 keys and values"},
		{"nodes of YAML", document.YAML, "a: [1, 2]\nb: &x c\n*x : *x\n", document.Options{MaxNodes: 8}, "more than 8 keys and values"},
		{"nodes of JSON", document.JSON, `{"a": [1, 2, {}]}`, document.Options{MaxNodes: 5}, "more than 5 keys and values"},
		{"nodes of a line of TOML", document.TOML, "a = [1, 2, {}]", document.Options{MaxNodes: 4}, "more than 4 keys and values"},
		{"nodes of TOML", document.TOML, "a = 1\n[b]\nc = 2\n", document.Options{MaxNodes: 4}, "more than 4 keys and values"},
		{"nodes of .env", document.Env, "A=1\nB=2\n", document.Options{MaxNodes: 3}, "more than 3 keys and values"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, err := document.Parse("f", []byte(tt.in), tt.format, tt.o)
			if err == nil || !strings.Contains(err.Error(), tt.want) || backend.CodeOf(err) != backend.CodeUsage {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}

// What is no key and no value does not count, nor does what stands in a text.
func TestNodesAreKeysAndValues(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		format document.Format
		in     string
		most   int
	}{
		{"YAML", document.YAML, "# a, b, c\na: {b: 1, c: '[,]'}\n", 7},
		{"JSON", document.JSON, `{"a": [1, "[,],"]} // 1, 2`, 5},
		{"TOML", document.TOML, "a = [1, 2] # 1, 2, 3, 4, 5", 4},
		{"TOML string", document.TOML, `a = "1,2,3,\",4,5"`, 2},
		{"TOML literal string", document.TOML, `a = '1,2,3,\'`, 2},
		{"TOML long string", document.TOML, "a = \"\"\"1,2,\"\",\\\"\"\",\n,4\"\"\"\"\"\nb = 1", 4},
		{"TOML long literal string", document.TOML, "a = '''1,'',\\''''\nb = 1", 4},
		{".env", document.Env, "A='1,2,[]='\n# B=1\n", 2},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if _, err := document.Parse("f", []byte(tt.in), tt.format, document.Options{MaxNodes: tt.most}); err != nil {
				t.Errorf("%d nodes: %v", tt.most, err)
			}
			_, err := document.Parse("f", []byte(tt.in), tt.format, document.Options{MaxNodes: tt.most - 1})
			if err == nil || !strings.Contains(err.Error(), "keys and values") {
				t.Errorf("%d nodes: got %v, want an error", tt.most-1, err)
			}
		})
	}
}

// Aliases are never followed, so ten levels of ten aliases each cost nothing.
func TestBillionLaughs(t *testing.T) {
	t.Parallel()
	in := "a0: &a0 [lol]\n"
	for i := range 30 {
		in += fmt.Sprintf("a%d: &a%d [%s]\n", i+1, i+1, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*a%d, ", i), 10), ", "))
	}
	if got := render(t, document.YAML, in+"x: cred://p/y\n", document.Options{}); got != in+"x: \"y\"\n" {
		t.Errorf("got\n%s", got)
	}
}

func TestEnv(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		format document.Format
		in     string
		want   string // name=value, @path for a ref; or an error
	}{
		{"env", document.Env, "export A='a b' # c\nB=cred://p/x\nC=\"l\\n\\$x\\q\"\nD\nE= x y # c\nF=\nG=#x\nH= #x\nI=a#b\n", "A=a b|B=@B|C=l\n$x\\q|E=x y|F=|G=#x|H=|I=a#b"},
		{"YAML", document.YAML, "A: cred://p/x\nB: 007\nC: True\nD: null\nE: {provider: p, id: x}\nF: &f text\nG: *f\n", "A=@A|B=007|C=True|E=@E|F=text|G=text"},
		{"alias of a ref", document.YAML, "A: &a {provider: p, id: x}\nB: *a\n", "A=@A|B=@A"},
		{"JSON", document.JSON, `{"A": "x", "B": 1.50, "C": "cred://p/x"}`, "A=x|B=1.50|C=@C"},
		{"TOML", document.TOML, "A = 'x'\nB = 1\nC = {provider = 'p', id = 'x'}\n", "A=x|B=1|C=@C"},
		{"TOML tables", document.TOML, "[A]\nprovider = 'p'\nid = 'x'\n[B]\nid = 'y'\nprovider = 'p'\n", "A=@A|B=@B"},
		{"TOML dotted keys", document.TOML, "A.provider = 'p'\nB = 2\nA.id = 'x'\n", "A=@A|B=2"},
		{"nested TOML ref", document.TOML, "[a.b]\nprovider = 'p'\nid = 'c4narys'\n", "error: f:1:2: a.b: an environment variable must be a scalar"},
		{"empty", document.YAML, "", ""},
		{"nested", document.YAML, "A: {b: c4narys}\n", "error: f:1:4: A: an environment variable must be a scalar"},
		{"nested TOML", document.TOML, "[a]\nb = 'c4narys'\n", "error: f:2:5: a.b: an environment variable must be a scalar"},
		{"list", document.JSON, `["c4narys"]`, "error: f: variables come from one map"},
		{"whole ref", document.JSON, `{"provider": "p", "id": "x"}`, "error: f: variables come from one map"},
		{"two documents", document.YAML, "A: 1\n---\nB: 1\n", "error: f: variables come from one map"},
		{"wrong name", document.JSON, `{"A=B": "c4narys"}`, `error: f:1:9: ["A=B"]: the key cannot name`},
		{"NUL", document.JSON, `{"A": "c4narys\u0000"}`, "error: f:1:7: A: an environment variable cannot hold a NUL"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			d, err := document.Parse("f", []byte(tt.in), tt.format, document.Options{})
			if err != nil {
				t.Fatal(err)
			}
			vars, err := d.Env()
			var got []string
			for _, v := range vars {
				if v.Site != nil {
					if v.Site != d.Refs()[0] && v.Site != d.Refs()[len(d.Refs())-1] {
						t.Errorf("%s: the site is none of the document's", v.Name)
					}
					v.Value = "@" + v.Site.Path
				}
				got = append(got, v.Name+"="+v.Value)
			}
			text := strings.Join(got, "|")
			if err != nil {
				text = "error: " + err.Error()
			}
			if text != tt.want && !(err != nil && strings.HasPrefix(tt.want, "error: ") && strings.HasPrefix(text, tt.want) && !strings.Contains(text, "c4narys")) {
				t.Errorf("got  %s\nwant %s", text, tt.want)
			}
		})
	}
}

func TestFormatOf(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]document.Format{
		"a.yaml": document.YAML, "dir/A.YML": document.YAML, "a.json": document.JSON, "a.jsonc": document.JSON, "a.json5": document.JSON5,
		"a.toml": document.TOML, ".env": document.Env, "app.env": document.Env, ".env.local": document.Env, ".env.json": document.JSON,
	} {
		if got, err := document.FormatOf(name); got != want || err != nil {
			t.Errorf("FormatOf(%q) = %s, %v; want %s", name, got, err, want)
		}
	}
	for _, name := range []string{"a.xml", "env", "Makefile", ""} {
		if _, err := document.FormatOf(name); backend.CodeOf(err) != backend.CodeUsage {
			t.Errorf("FormatOf(%q): got %v, want a usage error", name, err)
		}
	}
}

func TestSiteHoldsNoSecretInPrint(t *testing.T) {
	t.Parallel()
	d, err := document.Parse("f", []byte("a: {provider: p, id: x, default: c4narys}\n"), document.YAML, document.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if s := fmt.Sprintf("%v %+v %#v", *d.Refs()[0], *d.Refs()[0], *d.Refs()[0]); strings.Contains(s, "c4narys") {
		t.Errorf("a Site prints its default: %s", s)
	}
	if got := (credref.Ref{Provider: "p", ID: "x"}); d.Refs()[0].Ref != got {
		t.Errorf("Ref = %v, want %v", d.Refs()[0].Ref, got)
	}
}

// What is wrong with one ref does not take the others away, but a document with a fault is never written.
func TestFaultsLeaveTheOtherRefs(t *testing.T) {
	t.Parallel()
	src := []byte("a: cred://app/a\nb: cred://nowhere/b\nc: {provider: app, id: c, version: [], fallback: cred://app/f}\nd: cred://app/d\n")
	d, err := document.Parse("app.yaml", src, document.YAML, document.Options{Providers: []string{"app"}})
	if err == nil || d == nil {
		t.Fatalf("%v, %v", d, err)
	}
	var ids []string
	for _, site := range d.Refs() {
		ids = append(ids, site.Ref.ID)
	}
	if !slices.Equal(ids, []string{"a", "d"}) {
		t.Errorf("refs %v", ids)
	}
	if out, again := d.Render(nil); out != nil || again != err {
		t.Errorf("rendered %q, %v", out, again)
	}
	if vars, again := d.Env(); vars != nil || again != err {
		t.Errorf("variables %v, %v", vars, again)
	}
	if d, err := document.Parse("app.yaml", []byte("a: cred://app/a\nb: ["), document.YAML, document.Options{}); d != nil || err == nil {
		t.Errorf("what cannot be read to its end gave %v, %v", d, err)
	}
}
