//go:build !race

package execs

const raceDetector = false
