package redact

import (
	"io"
	"sync"
	"time"

	"github.com/credresolve/credresolve/backend"
)

// idle is how long a stream must rest before the few bytes that may begin a value are shown: shorter than a person
// notices in a prompt, longer than a program rests in the midst of a line.
const idle = 100 * time.Millisecond

// wrapped is the number of characters of base64 that must stand before a line end for it to be held back as a wrap. For
// fewer the ends of many innocent lines would be, and they tell little.
const wrapped = 4

// Writer passes a stream on with the values masked, also those that come in pieces. It holds back only what may be the
// beginning of a value. It is safe for concurrent use; the bytes of one Write stay together.
type Writer struct {
	r *Redactor
	w io.Writer

	mu    sync.Mutex
	err   error
	held  []byte  // what is not written yet
	start int64   // position in the stream of held[0]
	mask  []span  // what of held is to be masked, in order, apart from each other
	ended int64   // where the last mask written ended: a mask that goes on from there is not written twice
	plain int32   // state of r.plain
	based int32   // state of r.based
	chars []int64 // positions of the bytes that r.based has seen, the last ones
	wrap  bool    // only white space since a line end
	timer *time.Timer
}

type span struct{ from, to int64 }

// Writer gives a Writer to w. Close must be called at the end of the stream; it does not close w.
func (r *Redactor) Writer(w io.Writer) *Writer {
	return &Writer{r: r, w: w, ended: -1}
}

// Write takes all of p or gives the error of an earlier write to the underlying writer.
func (w *Writer) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err != nil {
		return 0, w.err
	}
	for _, b := range p {
		w.see(b)
	}
	w.emit(w.decided())
	if w.timer != nil {
		w.timer.Stop()
		w.timer = nil
	}
	if len(w.held) > 0 && w.err == nil {
		w.timer = time.AfterFunc(idle, w.rest)
	}
	if w.err != nil {
		return 0, w.err
	}
	return len(p), nil
}

// see takes one byte and marks the values that end with it.
func (w *Writer) see(b byte) {
	at := w.start + int64(len(w.held))
	w.held = append(w.held, b)
	w.plain = w.r.plain.step(w.plain, b)
	if n := int64(w.r.plain.nodes[w.plain].match); n > 0 {
		w.cover(at+1-n, at+1)
	}
	nodes := w.r.based.nodes
	if b == '\n' || b == '\r' || w.wrap && (b == ' ' || b == '\t') { // lines of base64 may be indented
		w.wrap = true
		return
	}
	w.wrap = false
	w.based = w.r.based.step(w.based, b)
	if w.based == 0 {
		w.chars = w.chars[:0]
		return
	}
	w.chars = append(w.chars, at)
	if n := int(nodes[w.based].match); n > 0 {
		w.cover(w.chars[len(w.chars)-n], at+1)
	}
	if d := int(nodes[w.based].depth); len(w.chars) > 2*d+64 {
		w.chars = append(w.chars[:0], w.chars[len(w.chars)-d:]...)
	}
}

// cover adds [from, to) to the mask; to never decreases from call to call.
func (w *Writer) cover(from, to int64) {
	from = max(from, w.start)
	for len(w.mask) > 0 && w.mask[len(w.mask)-1].to >= from {
		from = min(from, w.mask[len(w.mask)-1].from)
		w.mask = w.mask[:len(w.mask)-1]
	}
	w.mask = append(w.mask, span{from, to})
}

// decided is the position before which nothing depends on what comes next: everything but the beginning of a value that is
// not complete yet, of which what another value covers is decided too.
func (w *Writer) decided() int64 {
	from := max(min(w.plainFrom(), w.basedFrom()), w.start)
	if n := len(w.mask); n > 0 && w.mask[n-1].from <= from {
		from = max(from, w.mask[n-1].to)
	}
	return from
}

// plainFrom is where a value may have begun that is not complete yet; the end of what came so far if none has.
func (w *Writer) plainFrom() int64 {
	return w.start + int64(len(w.held)) - int64(w.r.plain.nodes[w.plain].depth)
}

// basedFrom is plainFrom for base64. A line end after a whole value is the end of a line and no wrap.
func (w *Writer) basedFrom() int64 {
	n := w.r.based.nodes[w.based]
	if n.depth == 0 || w.wrap && (n.depth < wrapped || n.match == n.depth) {
		return w.start + int64(len(w.held))
	}
	return w.chars[len(w.chars)-int(n.depth)]
}

// emit writes what is held before the position end, masked.
func (w *Writer) emit(end int64) {
	var out []byte
	at := w.start
	end = max(end, at)
	for len(w.mask) > 0 && w.mask[0].from < end {
		m := w.mask[0]
		out = append(out, w.held[at-w.start:m.from-w.start]...)
		if m.from != w.ended {
			out = append(out, backend.Redacted...)
		}
		at = min(m.to, end)
		w.ended = at
		if m.to > end {
			w.mask[0].from = end
			break
		}
		w.mask = w.mask[1:]
	}
	if at < end {
		out = append(out, w.held[at-w.start:end-w.start]...)
	}
	n := copy(w.held, w.held[end-w.start:])
	clear(w.held[n:])
	w.held, w.start = w.held[:n], end
	if len(out) > 0 && w.err == nil {
		_, w.err = w.w.Write(out)
	}
}

// rest shows what is held when it is so little of a value that it tells nothing: what a prompt ended with.
func (w *Writer) rest() {
	w.mu.Lock()
	defer w.mu.Unlock()
	harmless := func(n node) bool { return n.depth < MinLen && n.depth*4 <= n.shortest }
	if harmless(w.r.plain.nodes[w.plain]) && harmless(w.r.based.nodes[w.based]) {
		w.emit(w.start + int64(len(w.held)))
	}
}

// Close writes the rest: masked where it is more than half of a value that the stream's end cut off. It gives the first
// error of the underlying writer.
func (w *Writer) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.timer != nil {
		w.timer.Stop()
		w.timer = nil
	}
	end := w.start + int64(len(w.held))
	cut := func(n node, from int64) {
		if n.depth*2 > n.shortest && n.match < n.depth {
			w.cover(from, end)
		}
	}
	cut(w.r.plain.nodes[w.plain], w.plainFrom())
	cut(w.r.based.nodes[w.based], w.basedFrom())
	w.emit(end)
	w.plain, w.based, w.chars = 0, 0, nil
	return w.err
}
