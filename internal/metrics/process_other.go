//go:build !linux

package metrics

// system writes processor time where the system is a Unix. For the rest there is no source but cgo.
func (x *exposition) system() { x.processorTime() }
