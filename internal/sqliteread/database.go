package sqliteread

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"slices"
	"strings"
)

// database is one look at a database's files.
type database struct {
	ctx      context.Context
	path     string
	file     *os.File
	limit    int64 // bytes of one row
	pageSize int
	usable   int  // bytes of a page that hold content
	logged   bool // journal mode WAL

	log     *os.File         // nil: nothing in it
	logHead [logHeader]byte  // of the generation that is read
	frames  map[uint32]int64 // where in the log a page's newest committed content is

	size  int64 // bytes of the database and its log
	bytes int64 // what may still be read in this walk; a sound tree holds nothing twice
}

const (
	magic = "SQLite format 3\x00"

	maxDepth = 20 // of a b-tree; SQLite's own limit
	minPage  = 512
)

// readHeader reads the first 100 bytes of the file. What the log may have newer of them is the same or not needed.
func (d *database) readHeader() error {
	var h [100]byte
	switch _, err := d.file.ReadAt(h[:], 0); {
	case errors.Is(err, io.EOF):
		return &Error{Busy, d.path, "is empty or cut short, as while it is created"}
	case err != nil:
		return &Error{Busy, d.path, "cannot be read"}
	case string(h[:16]) != magic:
		return d.malformed("it does not start as one")
	}
	d.pageSize = int(binary.BigEndian.Uint16(h[16:]))
	if d.pageSize == 1 {
		d.pageSize = 1 << 16
	}
	d.usable = d.pageSize - int(h[20])
	switch {
	case d.pageSize < minPage || d.pageSize&(d.pageSize-1) != 0 || d.usable < 480:
		return d.malformed("its page size is impossible")
	case h[18] > 2 || h[19] > 2:
		return d.foreign("is of a newer SQLite format")
	case binary.BigEndian.Uint32(h[56:]) > 1:
		return d.foreign("keeps texts in UTF-16, which is not read here")
	}
	d.logged = h[19] == 2
	info, err := d.file.Stat()
	if err != nil {
		return &Error{Busy, d.path, "cannot be read"}
	}
	d.size = info.Size()
	return nil
}

// page reads page n, from 1, into a buffer of its own, which the caller zeroes.
func (d *database) page(n uint32) ([]byte, error) {
	if err := d.ctx.Err(); err != nil {
		return nil, err
	}
	if n == 0 {
		return nil, d.malformed("its pages lead nowhere")
	}
	if err := d.spend(d.pageSize); err != nil {
		return nil, err
	}
	b := make([]byte, d.pageSize)
	from, at := d.file, int64(n-1)*int64(d.pageSize)
	if offset, newer := d.frames[n]; newer {
		from, at = d.log, offset
	}
	if _, err := from.ReadAt(b, at); err != nil {
		clear(b)
		return nil, d.malformed("page %d is missing", n)
	}
	return b, nil
}

// spend accounts for n bytes of a walk, so that one through a broken file ends.
func (d *database) spend(n int) error {
	if d.bytes -= int64(n); d.bytes < 0 {
		return d.malformed("its pages lead in circles")
	}
	return nil
}

// rows calls each with the payload of every row of the table at page root, in order of the rowid. The payload is zeroed
// after the call.
func (d *database) rows(root uint32, each func(payload []byte) error) error {
	d.bytes = 2*d.size + int64(2*d.pageSize) // each page once, and its rows
	if err := d.walk(root, 0, each); err != errStop {
		return err
	}
	return nil
}

// errStop ends a walk early.
var errStop = errors.New("stop")

// find answers q.
func (d *database) find(q Query) (Cell, error) {
	root, columns, err := d.table(q.Table)
	if err != nil || root == 0 {
		return Cell{}, err
	}
	key, column := -1, -1
	for i, name := range columns {
		if strings.EqualFold(name, q.Key) {
			key = i
		}
		if strings.EqualFold(name, q.Column) {
			column = i
		}
	}
	if key < 0 || column < 0 {
		return Cell{}, d.foreign("has a table " + q.Table + " of another layout")
	}
	cell := Cell{Table: true}
	err = d.rows(root, func(payload []byte) error {
		v, err := d.value(payload, key)
		if err != nil || !v.text || string(v.bytes) != q.Is {
			return err
		}
		if v, err = d.value(payload, column); err != nil {
			return err
		}
		cell = Cell{Table: true, Found: true, Bytes: append([]byte(nil), v.bytes...), Int: v.number}
		return errStop
	})
	return cell, err
}

// list gives columns of every row of a table, one row after the other.
func (d *database) list(table string, names []string) ([]Cell, error) {
	root, columns, err := d.table(table)
	if err != nil || root == 0 {
		return nil, err
	}
	at := make([]int, len(names))
	for i, name := range names {
		if at[i] = slices.IndexFunc(columns, func(c string) bool { return strings.EqualFold(c, name) }); at[i] < 0 {
			return nil, d.foreign("has a table " + table + " of another layout")
		}
	}
	var cells []Cell
	left := d.limit
	err = d.rows(root, func(payload []byte) error {
		for _, column := range at {
			v, err := d.value(payload, column)
			if err != nil {
				return err
			}
			if left -= int64(len(v.bytes)) + 64; left < 0 {
				return d.foreign("has more in table " + table + " than is read")
			}
			cells = append(cells, Cell{Table: true, Found: true, Bytes: append([]byte(nil), v.bytes...), Int: v.number})
		}
		return nil
	})
	return cells, err
}

// table gives the root page and the columns of a table; 0 when there is none of that name.
func (d *database) table(name string) (root uint32, columns []string, err error) {
	const schemaType, schemaName, schemaRoot, schemaSQL = 0, 1, 3, 4
	err = d.rows(1, func(payload []byte) error {
		var vs [schemaSQL + 1]value
		for _, i := range []int{schemaType, schemaName, schemaRoot, schemaSQL} {
			if vs[i], err = d.value(payload, i); err != nil {
				return err
			}
		}
		if string(vs[schemaType].bytes) != "table" || !strings.EqualFold(string(vs[schemaName].bytes), name) {
			return nil
		}
		root, columns = uint32(vs[schemaRoot].number), columnsOf(string(vs[schemaSQL].bytes))
		return errStop
	})
	return root, columns, err
}

// columnsOf gives the names of the columns that a CREATE TABLE statement declares, in order.
func columnsOf(sql string) []string {
	open := strings.IndexByte(sql, '(')
	if open < 0 {
		return nil
	}
	var columns []string
	depth, start := 1, open+1
	declaration := func(end int) {
		if name := firstWord(sql[start:end]); name != "" {
			columns = append(columns, name)
		}
	}
	for i := open + 1; i < len(sql); i++ {
		switch c := sql[i]; c {
		case '(':
			depth++
		case ')':
			if depth--; depth == 0 {
				declaration(i)
				return columns
			}
		case ',':
			if depth == 1 {
				declaration(i)
				start = i + 1
			}
		case '\'', '"', '`':
			end := strings.IndexByte(sql[i+1:], c)
			if end < 0 {
				return nil
			}
			i += end + 1
		}
	}
	return nil
}

// firstWord gives the name at the start of a column's declaration; none for a constraint of the table.
func firstWord(s string) string {
	s = strings.TrimSpace(s)
	if s == "" {
		return ""
	}
	if i := strings.IndexByte("\"`[", s[0]); i >= 0 {
		end := strings.IndexByte(s[1:], "\"`]"[i])
		if end < 0 {
			return ""
		}
		return s[1 : 1+end]
	}
	word := s
	if end := strings.IndexAny(s, " \t\r\n("); end >= 0 {
		word = s[:end]
	}
	switch strings.ToUpper(word) {
	case "CONSTRAINT", "PRIMARY", "UNIQUE", "CHECK", "FOREIGN":
		return ""
	}
	return word
}

// walk does for the rows below page n what rows does.
func (d *database) walk(n uint32, depth int, each func(payload []byte) error) error {
	if depth > maxDepth {
		return d.malformed("a tree is too deep")
	}
	p, err := d.page(n)
	if err != nil {
		return err
	}
	defer clear(p)
	at := 0
	if n == 1 {
		at = 100 // behind the header of the file
	}
	kind, count := p[at], int(binary.BigEndian.Uint16(p[at+3:]))
	pointers := at + 8
	switch kind {
	case 0x05:
		pointers = at + 12
	case 0x0d:
	case 0x02, 0x0a:
		return d.foreign("has a table without rowid, which is not read here")
	default:
		return d.malformed("page %d is of no tree", n)
	}
	if pointers+2*count > d.usable {
		return d.malformed("page %d holds too many cells", n)
	}
	for i := range count {
		cell := int(binary.BigEndian.Uint16(p[pointers+2*i:]))
		if cell < pointers || cell+4 > d.usable {
			return d.malformed("a cell of page %d is outside of it", n)
		}
		if kind == 0x05 {
			if err := d.walk(binary.BigEndian.Uint32(p[cell:]), depth+1, each); err != nil {
				return err
			}
			continue
		}
		payload, err := d.payload(p[cell:d.usable])
		if err == nil {
			err = each(payload)
		}
		clear(payload)
		if err != nil {
			return err
		}
	}
	if kind == 0x05 {
		return d.walk(binary.BigEndian.Uint32(p[at+8:]), depth+1, each)
	}
	return nil
}

// payload gathers what a cell of a leaf holds, in it and on the pages that it overflows to.
func (d *database) payload(cell []byte) ([]byte, error) {
	size, n := varint(cell)
	if n == 0 || size > uint64(d.limit) {
		return nil, d.malformed("a row is cut short or too large")
	}
	_, m := varint(cell[n:]) // the rowid
	if m == 0 {
		return nil, d.malformed("a row is cut short")
	}
	cell = cell[n+m:]
	total, local := int(size), int(size)
	if most := d.usable - 35; total > most {
		least := (d.usable-12)*32/255 - 23
		if local = least + (total-least)%(d.usable-4); local > most {
			local = least
		}
	}
	if local > len(cell) {
		return nil, d.malformed("a row is cut short")
	}
	if err := d.spend(local); err != nil {
		return nil, err
	}
	out := append(make([]byte, 0, min(total, 1<<20)), cell[:local]...)
	if local == total {
		return out, nil
	}
	fail := func(err error) ([]byte, error) {
		clear(out)
		return nil, err
	}
	if local+4 > len(cell) {
		return fail(d.malformed("a row is cut short"))
	}
	for next := binary.BigEndian.Uint32(cell[local:]); len(out) < total; {
		p, err := d.page(next)
		if err != nil {
			return fail(err)
		}
		next = binary.BigEndian.Uint32(p)
		more := p[4:min(d.usable, 4+total-len(out))]
		if len(out)+len(more) > cap(out) {
			grown := append(make([]byte, 0, min(total, 2*cap(out)+len(more))), out...)
			clear(out)
			out = grown
		}
		out = append(out, more...)
		clear(p)
	}
	return out, nil
}

// value is one column of a row.
type value struct {
	bytes  []byte // of a text or blob; lent
	text   bool
	number int64 // of an integer
}

// value gives column i of a row. A column that was added to the table after the row is NULL.
func (d *database) value(payload []byte, i int) (value, error) {
	cut := d.malformed("a row is cut short")
	head, n := varint(payload)
	if n == 0 || head > uint64(len(payload)) {
		return value{}, cut
	}
	types, body := payload[n:max(int(head), n)], payload[head:]
	for ; len(types) > 0; i-- {
		kind, n := varint(types)
		if n == 0 {
			return value{}, cut
		}
		types = types[n:]
		size, ok := sizeOf(kind)
		if !ok || size > uint64(len(body)) {
			return value{}, cut
		}
		if i == 0 {
			return decode(kind, body[:size]), nil
		}
		body = body[size:]
	}
	return value{}, nil
}

// sizeOf is how many bytes a value of that serial type takes.
func sizeOf(kind uint64) (uint64, bool) {
	switch {
	case kind >= 12:
		return (kind - 12) / 2, true
	case kind == 10, kind == 11:
		return 0, false
	}
	return [...]uint64{0, 1, 2, 3, 4, 6, 8, 8, 0, 0}[kind], true
}

func decode(kind uint64, b []byte) value {
	switch {
	case kind >= 12:
		return value{bytes: b, text: kind%2 == 1}
	case kind == 9:
		return value{number: 1}
	case kind == 0, kind == 7, kind == 8: // NULL, a float, 0
		return value{}
	}
	var v int64
	for i, c := range b {
		if i == 0 {
			v = int64(int8(c))
		} else {
			v = v<<8 | int64(c)
		}
	}
	return value{number: v}
}

// varint decodes SQLite's variable-length integer; its length is 0 when b is too short.
func varint(b []byte) (uint64, int) {
	var v uint64
	for i, c := range b {
		if i == 8 {
			return v<<8 | uint64(c), 9
		}
		if v = v<<7 | uint64(c&0x7f); c < 0x80 {
			return v, i + 1
		}
	}
	return 0, 0
}
