// Package sqliteread reads cells of a SQLite database that another program owns, and disturbs nothing: it takes no lock, and
// creates, grows and deletes no file, neither the database's nor its -wal, -shm or -journal.
//
// It knows what a reader needs of the documented file format, which SQLite keeps stable: tables with a rowid, in UTF-8, in
// journal mode WAL or a rollback mode. It reads the write-ahead log as SQLite's recovery does: up to the last frame of the
// running generation that commits and whose checksum holds. A read that another program's checkpoint or transaction falls
// into is done again, and fails as Busy when that goes on.
//
// What is read is held to safefile's policies, the log as well as the database.
package sqliteread
