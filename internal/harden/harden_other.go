//go:build !unix

package harden

import "runtime"

func hide() (Report, error) { return Report{}, nil }

func lock() (why, remedy string) { return "not supported on " + runtime.GOOS, setAuto }
