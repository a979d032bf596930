//go:build !linux

package resident

func dropProgram() {}
