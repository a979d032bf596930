//go:build !unix

package listen

const noFollow = 0
