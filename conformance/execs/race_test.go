//go:build race

package execs

const raceDetector = true
