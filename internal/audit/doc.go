// Package audit writes the sidecar's audit log: a JSON line for each reveal, each denial and each act, without values.
//
// **What is promised.** When Write returns without an error, its lines are with the operating system: a process that is
// killed loses none of them. What the machine itself loses when its power fails is at most about the last second, since
// a file is synced once a second and not at each line. When Write fails, none of its lines are in the file.
//
// **Failure.** A log that fails closed gives the error, and whoever asked gets no secret. One that fails open gives none and
// counts what is lost. Either tells of it once, and again when it is over.
//
// **One file, many processes.** Each writes whole lines with O_APPEND, under a lock of the file (flock(2)) that it keeps for
// 20 ms while nobody else wrote, since locking costs more than writing. What a process that was killed in the middle of a
// write left behind is ended with a line feed by the next. On Windows there is no such lock: one process, one file.
//
// **Rotation.** A file that has grown to its limit becomes .1, the one before .2, and so on. One that somebody else moved or
// removed is left within a second, and at once by Apply.
package audit
