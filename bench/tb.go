package main

import (
	"context"
	"fmt"
	"os"
	"slices"
	"testing"
)

// tb lets a measurement start the servers of the tests. What fails or skips ends the measurement with an error.
type tb struct {
	testing.TB // nil: a method that is not below must not be called
	cleanups   []func()
	ctx        context.Context
}

type ended struct{ why string }

// withTB runs f, and then what f asked to clean up.
func withTB(f func(t *tb) (result, error)) (res result, err error) {
	ctx, cancel := context.WithCancel(context.Background())
	t := &tb{ctx: ctx}
	defer func() {
		cancel()
		for _, c := range slices.Backward(t.cleanups) {
			c()
		}
		if p := recover(); p != nil {
			e, ok := p.(ended)
			if !ok {
				panic(p)
			}
			err = fmt.Errorf("%s", e.why)
		}
	}()
	return f(t)
}

func (t *tb) Helper()                           {}
func (t *tb) Name() string                      { return "bench" }
func (t *tb) Context() context.Context          { return t.ctx }
func (t *tb) Cleanup(f func())                  { t.cleanups = append(t.cleanups, f) }
func (t *tb) Log(...any)                        {}
func (t *tb) Logf(string, ...any)               {}
func (t *tb) Fatal(args ...any)                 { panic(ended{fmt.Sprint(args...)}) }
func (t *tb) Fatalf(format string, args ...any) { panic(ended{fmt.Sprintf(format, args...)}) }
func (t *tb) Error(args ...any)                 { panic(ended{fmt.Sprint(args...)}) }
func (t *tb) Errorf(format string, args ...any) { panic(ended{fmt.Sprintf(format, args...)}) }
func (t *tb) Skip(args ...any)                  { panic(ended{fmt.Sprint(args...)}) }
func (t *tb) Skipf(format string, args ...any)  { panic(ended{fmt.Sprintf(format, args...)}) }

func (t *tb) TempDir() string {
	dir, err := os.MkdirTemp("", "bench-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}
