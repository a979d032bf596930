package sqliteread

import (
	"encoding/binary"
	"io"
	"os"
)

const (
	logHeader   = 32
	frameHeader = 24

	// mostLog bounds a log, of which only the places of pages are kept. One that a program lets grow to 64 MiB before it cuts
	// it, as OpenClaw does, can be larger for as long as a transaction is.
	mostLog = 1 << 30

	magicLittle = 0x377f0682 // checksums over little-endian words
	magicBig    = 0x377f0683
)

// readLog finds the newest committed frame of each page in the log, which has size bytes.
func (d *database) readLog(f *os.File, size int64) error {
	if size < logHeader {
		return nil
	}
	if size > mostLog {
		return d.foreign("has a write-ahead log larger than is read; let its owner checkpoint it")
	}
	if _, err := f.ReadAt(d.logHead[:], 0); err != nil {
		return &Error{Busy, d.path, "is being written"}
	}
	word := func(b []byte) uint32 { return binary.BigEndian.Uint32(b) }
	var order binary.ByteOrder
	switch word(d.logHead[:]) {
	case magicLittle:
		order = binary.LittleEndian
	case magicBig:
		order = binary.BigEndian
	default:
		return nil // never written whole
	}
	s1, s2 := checksum(order, d.logHead[:24], 0, 0)
	if s1 != word(d.logHead[24:]) || s2 != word(d.logHead[28:]) || int(word(d.logHead[8:])) != d.pageSize {
		return nil
	}
	d.log = f
	d.size += size
	frame := make([]byte, frameHeader+d.pageSize)
	defer clear(frame)
	open := make(map[uint32]int64) // the frames of a transaction without its commit yet
	for at := int64(logHeader); at+int64(len(frame)) <= size; at += int64(len(frame)) {
		if err := d.ctx.Err(); err != nil {
			return err
		}
		if _, err := f.ReadAt(frame, at); err == io.EOF {
			break
		} else if err != nil {
			return d.malformed("its write-ahead log cannot be read")
		}
		if string(frame[8:16]) != string(d.logHead[16:24]) {
			break // of the generation before
		}
		s1, s2 = checksum(order, frame[:8], s1, s2)
		s1, s2 = checksum(order, frame[frameHeader:], s1, s2)
		if s1 != word(frame[16:]) || s2 != word(frame[20:]) {
			break
		}
		open[word(frame)] = at + frameHeader
		if word(frame[4:]) != 0 { // a commit
			if d.frames == nil {
				d.frames = make(map[uint32]int64, len(open))
			}
			for page, offset := range open {
				d.frames[page] = offset
			}
			clear(open)
		}
	}
	return nil
}

// sameLog reports whether the log is still of the generation that was read: SQLite then has only added to it.
func (d *database) sameLog(f *os.File) bool {
	if d.log == nil {
		return true // nothing of it was used
	}
	var head [logHeader]byte
	_, err := f.ReadAt(head[:], 0)
	return err == nil && head == d.logHead
}

// checksum goes on with SQLite's checksum over b. The order is looked at once: a log is megabytes.
func checksum(order binary.ByteOrder, b []byte, s1, s2 uint32) (uint32, uint32) {
	if order == binary.LittleEndian {
		for ; len(b) >= 8; b = b[8:] {
			s1 += binary.LittleEndian.Uint32(b) + s2
			s2 += binary.LittleEndian.Uint32(b[4:]) + s1
		}
		return s1, s2
	}
	for ; len(b) >= 8; b = b[8:] {
		s1 += binary.BigEndian.Uint32(b) + s2
		s2 += binary.BigEndian.Uint32(b[4:]) + s1
	}
	return s1, s2
}
