package process

import (
	"fmt"
	"time"
)

// Failure is the way in which a run failed.
type Failure string

// The failures.
const (
	NotFound    Failure = "not found"  // there is no such program, or no such interpreter of a script
	NoAccess    Failure = "no access"  // the operating system does not let this user execute it
	NotAProgram Failure = "no program" // the operating system does not know the file's format
	NoStart     Failure = "no start"   // it could not be started for another reason, such as too many processes
	Exit        Failure = "exit"       // it ended with a status other than 0
	Signal      Failure = "signal"     // a signal ended it
	Timeout     Failure = "timeout"    // it ran longer than Command.Timeout
	Silence     Failure = "silence"    // it wrote nothing for Command.Silence
	Flood       Failure = "flood"      // it wrote more than Command.MaxOutput
	Broken      Failure = "broken"     // its output could not be read
)

// Error tells why a run failed. It holds nothing that the program wrote.
type Error struct {
	Failure Failure
	Status  int           // of Exit: 1 to 255; of Signal: the signal's number
	Name    string        // of Signal: the signal's name; of NoStart and Broken: the system's error
	Limit   time.Duration // of Timeout and Silence
	Max     int64         // of Flood, in bytes
}

func (e *Error) Error() string {
	switch e.Failure {
	case NotFound:
		return "the program, or the interpreter that its first line names, does not exist"
	case NoAccess:
		return "this user may not execute the program"
	case NotAProgram:
		return "the program is neither a binary for this system nor a script that starts with #!"
	case NoStart:
		return "the program could not be started: " + e.Name
	case Exit:
		return fmt.Sprintf("the program ended with status %d", e.Status)
	case Signal:
		return fmt.Sprintf("the program was ended by signal %d (%s)", e.Status, e.Name)
	case Timeout:
		return fmt.Sprintf("the program did not end within %v", e.Limit)
	case Silence:
		return fmt.Sprintf("the program wrote nothing for %v", e.Limit)
	case Flood:
		return fmt.Sprintf("the program wrote more than %d bytes", e.Max)
	}
	return "the program's output could not be read: " + e.Name
}
